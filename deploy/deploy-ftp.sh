#!/bin/bash
exec "$(dirname "${BASH_SOURCE[0]}")/deploy-filesync.sh" --role ground "$@"
