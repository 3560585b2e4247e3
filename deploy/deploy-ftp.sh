#!/bin/bash
# deploy-ftp.sh [--vehicle NAME]… [--registry] [OPTION of deploy-filesync.sh]…: installs or upgrades a ground station: an FTP server for vehicles.
#   --vehicle NAME     a vehicle that sends here; what its own configuration needs is printed. May be given more than once, and later again; not with
#                      --prepare-image: each copy of a card gets passwords of its own
#   --registry         vehicles register by themselves ("filesync register" there), and send by rsync over SSH; the user filesync gets a shell, for the one
#                      command that sshd runs for them (docs/registry.md). Needs openssh-server, rsync, python3 and openssl
# Where there is no configuration yet, one is made (filesync init --ground), also without a vehicle's name. The other options: deploy-filesync.sh --help
set -euo pipefail

# Itself, not a link that leads to it; nothing where it came through a pipe.
self=$(readlink -f "${BASH_SOURCE[0]:-}") || self=''
[ -f "$self" ] || self=''
deploy=${self%/*}
config=/etc/filesync/config.json
vehicles=() registry=() rest=() start=1 only_install='' dry=''
die() {
  echo "deploy-ftp.sh: $*" >&2
  exit 2
}
# As "filesync init --ground" takes it: better known before anything is installed.
is_name() {
  local LC_ALL=C
  [[ $1 =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]]
}
while [ $# -gt 0 ]; do
  case $1 in
    --vehicle)
      [ $# -gt 1 ] || die "--vehicle needs a name"
      is_name "$2" || die "--vehicle \"$2\": a vehicle's name has letters, digits, - and . in it, and no blanks"
      vehicles+=(--vehicle "$2")
      shift 2
      continue
      ;;
    --registry)
      registry=(--registry)
      shift
      continue
      ;;
    -h | --help)
      [ -n "$self" ] || die "it came through a pipe, and cannot read itself: download it first"
      sed -n '2,/^set /s/^# \{0,1\}//p' "$self"
      exit 0
      ;;
    --role)
      [ "${2-ground}" = ground ] || die "--role $2: a ground station is what it makes; deploy-filesync.sh installs a vehicle. Nothing was changed"
      ;;
    --uninstall | --prepare-image) only_install=$1 ;;
    --no-start) start='' ;;
    --dry-run) dry=1 ;;
    --config | --from)
      # A configuration that was given is the whole of it.
      rest+=("$1")
      [ $# -gt 1 ] || break
      shift
      ;;
  esac
  rest+=("$1")
  shift
done
is_filesync() { [ -r "$1/package.json" ] && [[ $(<"$1/package.json") == *$'\n  "name": "filesync",\n'* ]]; }
if [ -z "$self" ] || ! is_filesync "${deploy%/*}"; then
  alone="it came through a pipe"
  [ -z "$self" ] || alone="$self is a copy by itself"
  die "$alone, without FileSync around it: download an archive of FileSync (or a checkout), unpack it, and run the deploy/deploy-ftp.sh in it. Nothing was changed"
fi
if [ -n "$only_install" ] && [ ${#vehicles[@]} != 0 ]; then
  case $only_install in
    --uninstall) die "--vehicle does not go with --uninstall, which takes all of it away; nothing was changed" ;;
    *) die "--vehicle does not go with $only_install: every copy would have that vehicle's password. On each copy: sudo filesync init --ground --yes ${vehicles[*]}; nothing was changed" ;;
  esac
fi
if [ -n "$only_install" ] && [ ${#registry[@]} != 0 ]; then
  die "--registry does not go with $only_install; on each copy: sudo usermod --shell /bin/sh filesync && sudo filesync init --ground --registry --yes. Nothing was changed"
fi
if [ ${#registry[@]} != 0 ]; then
  missing=()
  PATH=$PATH:/usr/sbin:/sbin
  command -v sshd >/dev/null || missing+=(openssh-server)
  command -v ssh-keygen >/dev/null || missing+=(openssh-client)
  for tool in rsync python3 openssl; do command -v $tool >/dev/null || missing+=("$tool"); done
  [ ${#missing[@]} = 0 ] || die "--registry needs ${missing[*]}: apt-get install ${missing[*]}. Nothing was changed"
fi
given_config=''
for word in "${rest[@]}"; do [ "$word" != --config ] || given_config=1; done

# The one that deploy-filesync.sh put there says nothing: an earlier run may have been cut short.
there=''
if [ -e $config ] && ! cmp -s $config "$deploy/empty.config.json"; then there=1; fi
if [ -n "$only_install" ] || { [ ${#vehicles[@]}${#registry[@]} = 00 ] && [ -n "$there$given_config" ]; }; then
  exec "$deploy/deploy-filesync.sh" --role ground "${rest[@]}"
fi
if [ -n "$dry" ]; then
  "$deploy/deploy-filesync.sh" --role ground "${rest[@]}"
  if [ ${#registry[@]} != 0 ]; then echo "would run: usermod --shell /bin/sh filesync"; fi
  would=(filesync init --ground --yes --config "$config" "${registry[@]}" "${vehicles[@]}")
  echo "would run: ${would[*]}"
  exit 0
fi

# The program first, then what it is to do, then the service.
if [ -n "$start" ]; then rest+=(--no-start); fi
"$deploy/deploy-filesync.sh" --role ground "${rest[@]}"
# What the service reads when it starts.
read_at_start() { find $config "${config%/*}/certs" "${config%/*}/credentials" -type f -exec sha256sum {} + 2>/dev/null | sort || true; }
before=$(read_at_start)
# sshd runs its one command by the account's shell. Nobody can log in: it has no password, and no key but those of vehicles.
if [ ${#registry[@]} != 0 ]; then usermod --shell /bin/sh filesync; fi
/opt/filesync/current/bin/filesync init --ground --yes --config $config "${registry[@]}" "${vehicles[@]}" || {
  echo "deploy-ftp.sh: it is installed, and $config is as it was, for the reason above: mend that and run this again" >&2
  exit 1
}
if [ -z "$start" ]; then exit 0; fi
if [ "$(read_at_start)" != "$before" ] && systemctl -q is-active filesync-ground.service; then systemctl stop filesync-ground.service; fi
# What is installed now, which has not to be built again; it waits until the service is ready.
exec /opt/filesync/current/deploy/deploy-filesync.sh --role ground
