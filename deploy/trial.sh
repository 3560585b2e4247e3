#!/bin/sh
# trial.sh begin | ready | back: a version that was just installed is on trial until it was ready once. systemd calls "begin" before each start and
# "ready" after it said so; at the fourth start without that the version before it is put back, so that an upgrade that nobody watched, or that the
# power cut short, leaves no vehicle without FileSync. "back" does so at once.
set -eu
# Another prefix is for tests.
prefix=${FILESYNC_PREFIX:-/opt/filesync}
state=${FILESYNC_STATE:-/var/lib/filesync}
mark=$prefix/trial
most=3

back() {
  new=$(readlink "$prefix/current")
  old=$(readlink "$prefix/previous") || { echo "there is no version before $new to go back to"; rm -f "$mark"; return 1; }
  # What the newer one made of the journal may be nothing for the older one: it may set that aside and rebuild it.
  [ ! -d "$state" ] || { : >"$state/went-back" && chown --reference="$state" "$state/went-back"; }
  ln -sfn "$old" "$prefix/current.new"
  mv -T "$prefix/current.new" "$prefix/current"
  rm -f "$mark"
  sync -f "$prefix"
  echo "${new#versions/} did not become ready: back to ${old#versions/}"
  systemctl daemon-reload
}

case ${1-} in
  begin)
    [ -e "$mark" ] || exit 0
    tried=$(cat "$mark")
    case $tried in '' | *[!0-9]*) tried=0 ;; esac
    if [ "$tried" -ge $most ]; then back; exit; fi
    echo $((tried + 1)) >"$mark.new"
    mv "$mark.new" "$mark"
    sync -f "$prefix"
    ;;
  ready) rm -f "$mark" ;;
  back) back ;;
  *) echo "trial.sh begin | ready | back" >&2; exit 2 ;;
esac
