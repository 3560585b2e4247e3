#!/bin/sh
# trial.sh begin | ready | ended UNIT | back | units: a version that was just installed is on trial until it was ready once. systemd calls "begin" before
# each start and "ready" after it said so; at the fourth start without that the version before it is put back, so that an upgrade that nobody watched, or
# that the power cut short, leaves no vehicle without FileSync. "ended", which systemd calls after each end, does so where it would not be started again.
# "back" does so at once. "units" gives systemd the units of the version that runs; "begin" on trial and "back" do so too.
set -eu
# As for systemctl --root: one whose systemd does not run.
root=${FILESYNC_ROOT:-}
prefix=/opt/filesync
units=/usr/local/lib/systemd/system
links=$root/etc/systemd/system
state=$root/var/lib/filesync
mark=$root$prefix/trial
# What the service is told by FILESYNC_WENT_BACK.
went_back=$root$prefix/went-back
most=3

# As files: "systemctl enable" follows a link to its end, and its own links would name this version for good. Safe at every moment: a unit that was
# enabled stays so.
units() {
  for unit in "$root$prefix"/current/systemd/*; do
    [ -e "$unit" ] || continue
    place=$root$units/${unit##*/}
    if [ ! -L "$place" ] && cmp -s "$unit" "$place"; then continue; fi
    rm -f "$place.new" && cp "$unit" "$place.new" && chmod 644 "$place.new" && sync "$place.new" && mv -T "$place.new" "$place" || return 1
  done
  # Those that an earlier FileSync had made so. First what enables a unit, then what goes before the file.
  for link in "$links"/*.wants/* "$links"/*.requires/* "$links"/*; do
    [ -L "$link" ] || continue
    case $(readlink "$link") in "$prefix"/*) ;; *) continue ;; esac
    case $link in
      *.wants/* | *.requires/*) ln -sfn "$units/${link##*/}" "$link.new" && mv -T "$link.new" "$link" || return 1 ;;
      *) rm "$link" || return 1 ;;
    esac
  done
  sync
  # Also where nothing was to be done: whoever did it may have been ended before this.
  [ -n "$root" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
}

# As the directory's owner: what root opened there could be a link of that user's that leads anywhere.
tell_owner() {
  [ -d "$state" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    touch "$state/went-back"
  else
    setpriv --reuid "$(stat -Lc %u "$state")" --regid "$(stat -Lc %g "$state")" --clear-groups touch "$state/went-back"
  fi
}

back() {
  # The script that installs, and systemd: the later one finds it done.
  exec 8<"$root$prefix" && flock 8
  new=$(readlink "$root$prefix/current")
  old=$(readlink "$root$prefix/previous") || { echo "there is no version before $new to go back to"; rm -f "$mark"; return 1; }
  # What the newer one made of the journal may be nothing for the older one: it may set that aside and rebuild it, wherever its "stateDir" is. One that
  # was built before FILESYNC_WENT_BACK looks in the usual one.
  touch "$went_back" || echo "$went_back could not be made"
  tell_owner || echo "$state/went-back could not be made"
  ln -sfn "$old" "$root$prefix/current.new"
  mv -T "$root$prefix/current.new" "$root$prefix/current"
  # The mark is last: a power cut before it, and the next start does the rest.
  units || echo "the units of ${old#versions/} could not be put back"
  rm -f "$mark"
  sync -f "$root$prefix"
  # The same: the power went on the way back.
  [ "$new" = "$old" ] || echo "${new#versions/} did not become ready: back to ${old#versions/}"
}

case ${1-} in
  begin)
    [ -e "$mark" ] || exit 0
    tried=$(cat "$mark")
    case $tried in '' | *[!0-9]*) tried=0 ;; esac
    if [ "$tried" -ge $most ]; then back; exit; fi
    if ! { echo $((tried + 1)) >"$mark.new" && mv "$mark.new" "$mark"; }; then
      # On a full disk: over what is there, which takes no room.
      rm -f "$mark.new"
      echo $((tried + 1)) 1<>"$mark"
    fi
    sync -f "$root$prefix"
    # The power may have gone between the version and its units.
    units || echo "its units could not be placed"
    ;;
  ready) rm -f "$mark" "$went_back" ;;
  ended)
    # RestartPreventExitStatus: off trial that is for a person to mend.
    [ -e "$mark" ] && [ "${EXIT_CODE-} ${EXIT_STATUS-}" = "exited 2" ] || exit 0
    # Not started yet: what ended is the version before, for the new one.
    [ "$(cat "$mark")" != 0 ] || exit 0
    if [ -z "$root" ]; then
      # It did not end by itself: a person, the script that installs or a shutdown has asked for it.
      case $(systemctl list-jobs --no-legend "$2") in *" stop "* | *" restart "*) exit 0 ;; esac
      # Before anything that takes time. "start" would be one with the start that fails just now, if that is what ended.
      systemctl --no-block restart "$2"
    fi
    back
    ;;
  back) back ;;
  units) units ;;
  *) echo "trial.sh begin | ready | ended UNIT | back | units" >&2; exit 2 ;;
esac
