#!/bin/bash
# deploy-filesync.sh [OPTION]…: installs or upgrades FileSync on this machine, and waits until it is ready. For Raspberry Pi OS and Debian 12 and 13.
#   --from FILE        from an archive of make-bundle.sh or "npm pack"; default: from where this script is, an unpacked archive or a checkout
#   --config FILE      becomes /etc/filesync/config.json, if there is none yet, or one of which nothing can be used (kept as config.json.old)
#   --role ROLE        vehicle (default) or ground: filesync.service or filesync-ground.service; an upgrade keeps what is there
#   --no-start         installs, and starts at the next boot
#   --prepare-image    for a card that will be copied: as --no-start, and nothing on it says which machine it is; both also in a chroot
#   --replace-old      the services of the FileSync in Python are stopped and put aside; where ours fails then, they run again
#   --uninstall        takes it away; what it has not delivered, its configuration and its user stay
#   --purge            with --uninstall: these too; files that arrived elsewhere stay, and their user with them
#   --dry-run          says what it would do
# Running it again changes nothing that is as it should be. Exit codes: 0 done; 1 it failed, and the version before runs on; 2 nothing was begun.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

prefix=/opt/filesync
etc=/etc/filesync
state=/var/lib/filesync
units=/usr/local/lib/systemd/system
# What is in it; services first.
unit_names=(filesync.service filesync-ground.service filesync-mount.socket filesync-mount@.service)
rules=/usr/local/lib/udev/rules.d/60-filesync.rules
command=/usr/local/bin/filesync
node_mirror=${FILESYNC_NODE_MIRROR:-https://nodejs.org/dist}
readonly node_major=24 ready_seconds=180

say() { echo "$*"; }
die() {
  echo "deploy-filesync.sh: $*" >&2
  exit 2
}
fail() {
  echo "deploy-filesync.sh: $*" >&2
  exit 1
}
# What changes the machine goes through here.
run() {
  if [ -n "$dry" ]; then say "would run: $*"; else "$@"; fi
}

# Itself, not a link that leads to it; nothing where it came through a pipe.
self=$(readlink -f "${BASH_SOURCE[0]:-}") || self=''
[ -f "$self" ] || self=''
here=${self%/*/*}
from='' config='' role='' start=1 image='' replace='' uninstall='' purge='' dry=''
while [ $# -gt 0 ]; do
  case $1 in
    --from | --config | --role)
      [ $# -gt 1 ] || die "$1 needs a value"
      declare "${1#--}=$2"
      shift
      ;;
    --no-start) start= ;;
    --prepare-image) image=1 start= ;;
    --replace-old) replace=1 ;;
    --uninstall) uninstall=1 ;;
    --purge) purge=1 ;;
    --dry-run) dry=1 ;;
    -h | --help)
      [ -n "$self" ] || die "it came through a pipe, and cannot read itself: download it first"
      sed -n '2,/^set /s/^# \{0,1\}//p' "$self"
      exit 0
      ;;
    *) die "there is no option $1; --help lists them" ;;
  esac
  shift
done
case $role in '' | vehicle | ground) ;; *) die "--role is vehicle or ground, not $role" ;; esac
[ -z "$purge" ] || [ -n "$uninstall" ] || die "--purge goes with --uninstall"
[ -z "$from" ] || [ -r "$from" ] || die "$from cannot be read"
[ ! -d "$from" ] || die "$from is a directory: --from names an archive; what is unpacked already has a deploy/deploy-filesync.sh of its own"
[ -z "$config" ] || [ -r "$config" ] || die "$config cannot be read"
[ ! -d "$config" ] || die "$config is a directory: --config names the file in it"
# Anybody's directory around a copy of the script is not to be installed.
is_filesync() { [ -r "$1/package.json" ] && [[ $(<"$1/package.json") == *$'\n  "name": "filesync",\n'* ]]; }
if { [ -z "$from" ] || [ -n "$uninstall" ]; } && { [ -z "$self" ] || ! is_filesync "$here"; }; then
  alone="it came through a pipe"
  [ -z "$self" ] || alone="$self is a copy by itself"
  if [ -n "$uninstall" ]; then die "$alone: run $prefix/current/deploy/deploy-filesync.sh --uninstall; nothing was changed"; fi
  die "$alone, without FileSync around it: download an archive of FileSync (or a checkout), unpack it, and run the deploy/deploy-filesync.sh in it; or name the archive with --from FILE. Nothing was changed"
fi
[ -n "$dry" ] || [ "$(id -u)" = 0 ] || die "it has to be root: sudo $0"
# In a chroot, also one that sees the /run of the machine around it, nothing can be started or stopped; what enables a unit can be put there.
booted='' enabling=(systemctl -q --root=/) now=()
if [ -d /run/systemd/system ] && ! systemd-detect-virt -q --chroot 2>/dev/null; then booted=1 enabling=(systemctl -q) now=(--now); fi
command -v systemctl >/dev/null || die "systemd is not here: apt-get install systemd"
if [ -z "$booted" ] && [ -n "$start$uninstall" ]; then
  if [ -z "$dry" ] || [ -n "$uninstall" ]; then
    die "systemd does not run here: --prepare-image (or --no-start) installs into an image, also in a chroot; elsewhere start \"filesync run\" by your own means"
  fi
  say "systemd does not run here: but for --prepare-image and --no-start this would be refused. Where it runs:"
fi

# One at a time.
if [ -z "$dry" ]; then
  # Not in /run/lock, where anybody may put a link, or hold it.
  mkdir -p /run
  exec 9>/run/filesync-deploy.lock
  flock -n 9 || die "another deploy-filesync.sh is at work"
fi

# Whether it is enabled, also where the link leads nowhere.
enabled() {
  [ -n "$(find /etc/systemd/system -path "*.wants/$1")" ]
}

# Files of its user that are not the installation's own: a directory a line.
files_elsewhere() {
  local user
  user=$(id -u filesync 2>/dev/null) || return 0
  find / \( -fstype proc -o -fstype sysfs -o -fstype devtmpfs -o -fstype cgroup2 -o -fstype nfs -o -fstype nfs4 -o -fstype cifs -o -path /tmp -o -path /var/tmp \
    -o -path /run -o -path /usr -o -path /boot -o -path /etc -o -path $prefix -o -path $state \) -prune -o -user "$user" -prune -print 2>/dev/null || true
}

# ---------------------------------------------------------------------------------------------------------------------------------- taking it away

# Before anything below is removed: a disk's files are nobody's to take away. As a root service it mounts below its state directory.
unmount_disks() {
  local mount
  while read -r mount; do
    run umount "$mount" 2>/dev/null || run umount -l "$mount"
  done < <(findmnt -rno TARGET | grep -E "^(/run/filesync/disks|$state/devices)/" | tac || true)
}

take_away() {
  local unit
  # What an older one enabled cannot be disabled by name.
  run sh "$here/deploy/trial.sh" units
  for unit in "${unit_names[@]}"; do
    # Of a template there are only instances, which end below.
    if [ -e "$units/$unit" ] && [[ $unit != *@* ]]; then run systemctl -q disable --now "$unit"; fi
  done
  # A helper at work, and what it mounted.
  if [ -e $units/filesync-mount@.service ]; then run systemctl stop 'filesync-mount@*.service'; fi
  unmount_disks
  run rm -f "${unit_names[@]/#/$units/}" $rules $command
  # Not /usr/local/lib itself: that is Debian's.
  local dir
  for dir in $units "${units%/*}" "${rules%/*}" "${rules%/*/*}"; do
    [ ! -d "$dir" ] || run rmdir --ignore-fail-on-non-empty "$dir"
  done
  run systemctl daemon-reload
  run systemctl reset-failed 'filesync*' 2>/dev/null || true
  ! command -v udevadm >/dev/null || run udevadm control --reload || true
  run rm -rf $prefix
  run rm -rf --one-file-system /run/filesync
  if [ -n "$purge" ]; then
    local kept one
    say "Looking for files that it has elsewhere"
    kept=$(files_elsewhere)
    run rm -rf $state $etc
    if [ -n "$kept" ]; then
      # Without it they would be the next new user's.
      say "FileSync, its configuration, journal and spool are gone. What it brought stays, and so does the user filesync, whose files these are:"
      while read -r one; do say "  $one ($(du -sh "$one" 2>/dev/null | cut -f1))"; done <<<"$kept"
      say "Give them to somebody else (chown -R USER: DIR) or remove them, then: userdel filesync"
    else
      ! getent passwd filesync >/dev/null || run userdel filesync
      ! getent group filesync >/dev/null || run groupdel filesync
      say "FileSync, its configuration, journal and spool are gone, and its user, who has no files elsewhere."
    fi
  else
    say "FileSync is gone. $etc, $state and the user filesync, whose files these are, stay; --uninstall --purge takes them too."
  fi
}

writable() {
  local dir
  if [ -n "$dry" ]; then return; fi
  for dir in "$@"; do
    [ ! -e "$dir" ] || [ -w "$dir" ] || die "$dir cannot be written: is the file system read-only? (mount -o remount,rw /); nothing was changed"
  done
}

if [ -n "$uninstall" ]; then
  writable /etc /opt $prefix /usr/local $units ${purge:+$etc $state /var/lib}
  if [ -n "$purge" ] && [ -L $prefix/current ] && [ -r $etc/config.json ]; then
    # What is thrown away may be nowhere else.
    left=$($command status --config $etc/config.json 2>/dev/null | sed -n 1p || true)
    [ -z "$left" ] || say "It says of itself, last: $left"
  fi
  take_away
  exit 0
fi

# ---------------------------------------------------------------------------------------------------------------------------------- what is here already

writable /etc /opt /usr/local
# The FileSync in Python had services of its own names.
others=()
for old in /etc/systemd/system/filesync*.service; do
  if [ ! -e "$old" ] || [ -L "$old" ]; then continue; fi
  by=$(sed -n 's/^ExecStart=//p' "$old" | tail -n 1)
  if [[ $by == "$prefix"/* ]]; then
    say "$old stands before the unit of the same name, which upgrades bring ($units): systemctl revert $(basename "$old") takes it away, drop-ins stay as they are"
    continue
  fi
  [ -n "$replace" ] || die "$old is another FileSync's (started by: $by): --replace-old stops it and puts it aside as $old.old"
  others+=("$old")
done
if [ -z "$role" ]; then
  role=vehicle
  ! enabled filesync-ground.service || role=ground
fi
service=filesync.service other=filesync-ground.service
if [ $role = ground ]; then service=filesync-ground.service other=filesync.service; fi
for unit in "$service" filesync-mount.socket; do
  [ "$(readlink "/etc/systemd/system/$unit")" != /dev/null ] || die "$unit is masked: systemctl unmask $unit, and run this again"
done

# ------------------------------------------------------------------------------------------------------------------------------ what is to be installed

# All that is unpacked, fetched and built is on the disk where it will stay: /tmp may be small, and memory.
if [ -n "$dry" ]; then
  room=${TMPDIR:-/tmp}
else
  room=$prefix/versions
  mkdir -p $room 2>/dev/null || die "$room cannot be made: is the file system read-only? (mount -o remount,rw /)"
  rm -rf $room/.new-*
fi
# What runs from the next start on.
point_to() {
  run sync -f $prefix
  run ln -sfn "$1" $prefix/current.new
  run mv -T $prefix/current.new $prefix/current
  run sync -f $prefix
}
# Where nothing of ours ran before, and it failed: what did runs again.
aside=() ran=()
put_back() {
  local old
  [ ! -e "$units/$service" ] || "${enabling[@]}" disable "${now[@]}" "$service" filesync-mount.socket || true
  for old in "${aside[@]}"; do mv "$old.old" "$old" || true; done
  [ -z "$booted" ] || systemctl daemon-reload || true
  if [ ${#ran[@]} = 0 ] || "${enabling[@]}" enable "${now[@]}" "${ran[@]}"; then
    say "What was put aside is back: ${aside[*]}"
  fi
}
leave() {
  local code=$?
  if [ $code != 0 ] && [ ${#aside[@]} != 0 ] && [ -z "$before" ]; then put_back >&2; fi
  rm -rf "$work"
  [ -n "$dry" ] || rmdir --ignore-fail-on-non-empty $prefix/versions $prefix 2>/dev/null || true
}
work=$(mktemp -d "$room/.new-XXXXXX") || die "no directory can be made in $room: is the file system read-only (mount -o remount,rw /), or full?"
trap leave EXIT
export TMPDIR=$work

free_mib() { df -Pm "$room" 2>/dev/null | awk 'NR == 2 { print $4 }'; }
no_room() { die "$room has $(free_mib) MiB free, and $1 are needed; nothing was changed"; }

case $(dpkg --print-architecture 2>/dev/null || uname -m) in
  amd64 | x86_64) arch=x64 ;;
  arm64 | aarch64) arch=arm64 ;;
  armhf | armv7l) arch=arm ;;
  *) die "there is no FileSync for $(uname -m): it needs a 64-bit system, or a 32-bit ARM with Node.js 22.13 or newer" ;;
esac
# Without the database that comes along for the others, Node's own is used.
if [ $arch = arm ]; then least=22.13; else least=20.19; fi

node_fits() {
  "$1" -e "const [a,b]=process.versions.node.split('.').map(Number),[c,d]='$least'.split('.').map(Number);process.exit(a>c||a===c&&b>=d?0:1)" 2>/dev/null
}

# A Node.js to build with, and to take along: $work/node.
get_node() {
  [ $arch != arm ] || die "this system is a 32-bit one: it needs a Node.js of its own with npm, $least or newer (here: $(node --version 2>/dev/null || echo none)), or a 64-bit system"
  command -v curl >/dev/null || die "there is no Node.js 20.19 or newer here, and no curl to get one: apt-get install curl, or install from an archive of make-bundle.sh, which has one in it"
  local sums=$work/sums name
  say "There is no Node.js 20.19 or newer with npm here: Node.js $node_major is taken from $node_mirror"
  curl -fsSL --connect-timeout 15 --retry 2 -o "$sums" "$node_mirror/latest-v$node_major.x/SHASUMS256.txt" ||
    die "$node_mirror cannot be reached: without a network install from an archive of make-bundle.sh, which has Node.js in it"
  name=$(sed -n "s/^[0-9a-f]*  \(node-v[0-9.]*-linux-$arch\.tar\.gz\)$/\1/p" "$sums")
  curl -fL --progress-bar --connect-timeout 15 --retry 2 -o "$work/$name" "$node_mirror/latest-v$node_major.x/$name" || die "$node_mirror/latest-v$node_major.x/$name cannot be had"
  (cd "$work" && grep -F "  $name" "$sums" | sha256sum --quiet -c -) || die "$name is not what its sum says: try again"
  mkdir "$work/node"
  tar -xzf "$work/$name" -C "$work/node" --strip-components=1
}

# From a checkout or a package of npm: what make-bundle.sh makes of it.
build_from() {
  local own_node=
  if ! command -v npm >/dev/null || ! node_fits node; then
    get_node
    PATH=$work/node/bin:$PATH
    own_node=1
  fi
  say "Building from $1"
  # As a program that changes nothing but its own directories: in a copy, so that a checkout of a user stays that user's.
  mkdir "$work/source"
  tar -C "$1" --exclude=./node_modules --exclude=./.git --exclude='./*.tar.gz' -c . | tar -C "$work/source" --no-same-owner -x
  bash "$work/source/deploy/make-bundle.sh" --arch $arch --node none --stage "$work/bundle" ||
    die "it could not be built, for the reason above; nothing was changed. An archive that make-bundle.sh made where there is a network needs none here"
  if [ -n "$own_node" ]; then
    mkdir -p "$work/bundle/node/bin"
    cp "$work/node/bin/node" "$work/bundle/node/bin/node"
    cp "$work/node/LICENSE" "$work/bundle/node/" 2>/dev/null || true
    (cd "$work/bundle" && sha256sum node/bin/node >>SHA256SUMS)
  fi
  source=$work/bundle
}

source=$here
if [ -n "$from" ]; then
  mkdir "$work/from"
  if ! LC_ALL=C tar -xzf "$from" -C "$work/from" --no-same-owner 2>"$work/words"; then
    if grep -qE 'No space left|quota exceeded' "$work/words" || [ "$(free_mib)" -lt 1 ]; then
      rm -rf "$work/from"
      needed=$(gzip -l "$from" 2>/dev/null | awk 'NR == 2 { print int($2 / 1048576) + 20 }' || true)
      no_room "${needed:-more}"
    fi
    die "$from is no whole archive: copy it again"
  fi
  source=$(find "$work/from" -mindepth 1 -maxdepth 1 -type d | head -n 1)
  is_filesync "$source" || die "$from is no archive of FileSync"
fi
if [ -e "$source/SHA256SUMS" ]; then
  of=$(cat "$source/ARCH")
  [ "$of" = $arch ] || die "this archive is for $of, and this machine is $arch ($(uname -m)): make-bundle.sh --arch $arch makes one for it"
elif [ -n "$dry" ]; then
  say "would build from $source"
else
  build_from "$source"
fi

if [ -e "$source/SHA256SUMS" ]; then
  # "sha256sum: WARNING" and the like are told in words of ours.
  (cd "$source" && sha256sum --quiet -c SHA256SUMS >"$work/wrong" 2>&1) || die "the archive is damaged ($(head -n 1 "$work/wrong")): copy it again"
  [ -x "$source/node/bin/node" ] || node_fits node ||
    die "this archive has no Node.js in it, and there is none here that is $least or newer"
  version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' "$source/package.json")
  version=$version-$(sha256sum "$source/SHA256SUMS" | cut -c1-12)
else
  version="(built then)"
fi

before=$(readlink $prefix/current 2>/dev/null || true)
# Of one that is not there any more nothing can be kept.
[ -d "$prefix/$before" ] || before=''
# The version to go back to is the one that was ready last: not one that is on trial still (installed and not started, or cut short).
last=$before
if [ -e $prefix/trial ] && [ -d $prefix/previous ]; then last=$(readlink $prefix/previous); fi
fresh='' placed='' mended=''
# That the version in $1 can use nothing of $2: "check" ends with 2 also where only a part is left out.
useless() {
  [[ $("$1/bin/filesync" check --json --config "$2" 2>/dev/null || true) == '{"usable":false'* ]]
}
# What was installed may have been damaged since, by a card that fails.
whole() { [ "$source" = "$1" ] || (cd "$1" && sha256sum --status -c SHA256SUMS 2>/dev/null); }
# With the version in $1, before anything is changed: what the one that runs takes for good may be a mistake for it, and one that can use nothing of it
# would end, as would the one before.
look_at_config() {
  local problems
  # One that the version before can use stays for it.
  if [ -n "$config" ] && { [ ! -e $etc/config.json ] || { useless "$1" $etc/config.json && { [ -z "$before" ] || useless "$prefix/$last" $etc/config.json; }; }; }; then
    ! useless "$1" "$config" || die "nothing of $config can be used; mend it and run this again, nothing was changed:
$("$1/bin/filesync" check --config "$config" 2>&1 || true)"
    placed=1
    return
  fi
  if [ ! -e $etc/config.json ] || problems=$("$1/bin/filesync" check --config $etc/config.json 2>&1); then return; fi
  if [ -n "$before" ]; then
    ! useless "$1" $etc/config.json || die "nothing of $etc/config.json can be used; mend it and run this again, nothing was changed:
$problems"
    [ "$1" = "$prefix/versions/$version" ] || ! "$prefix/$last/bin/filesync" check --config $etc/config.json >/dev/null 2>&1 ||
      die "the new version cannot use $etc/config.json, which the old one can; mend it and run this again, nothing was changed:
$problems"
  fi
  say "$etc/config.json has mistakes:
$problems"
}
# What it leads to may be a disk that is not mounted: another configuration in its place would be the one from then on.
[ ! -L $etc/config.json ] || [ -e $etc/config.json ] ||
  die "$etc/config.json is a link to $(readlink $etc/config.json), which is not there; mount or make that, or remove the link, and run this again, nothing was changed"
# What can be read only once is read once.
if [ -n "$config" ] && [ ! -f "$config" ]; then
  cat "$config" >"$work/config.json"
  config=$work/config.json
fi
if [ -n "$dry" ]; then
  fresh=$prefix/versions/$version
  # What is not built yet cannot look.
  reader=$source
  [ -e "$source/SHA256SUMS" ] || reader=$prefix/$before
  if [ -e $etc/config.json ] && [ ! -r $etc/config.json ]; then
    say "would look at $etc/config.json first, which you may not read: sudo $0 --dry-run looks at it"
  elif [ -x "$reader/bin/filesync" ]; then
    look_at_config "$reader"
  fi
elif [ -d "$prefix/versions/$version" ] && whole "$prefix/versions/$version"; then
  fresh=$prefix/versions/$version
  look_at_config "$fresh"
else
  fresh=$source
  if [[ $source != "$work"/* ]]; then
    needed=$(($(du -sm "$source" | cut -f1) + 20))
    [ "$(free_mib)" -ge $needed ] || no_room $needed
    fresh=$work/new
    cp -a --no-preserve=ownership "$source" "$fresh" || no_room $needed
  fi
  chmod -R go-w,a+rX "$fresh"
  "$fresh/bin/filesync" --version >/dev/null || die "$version does not run on this machine; nothing was changed"
  look_at_config "$fresh"
fi

# ------------------------------------------------------------------------------------------------------------------------------------- user, directories

writable /etc /opt /usr/local
for old in "${others[@]}"; do
  if [ -z "$dry" ]; then
    aside+=("$old")
    ! enabled "$(basename "$old")" || ran+=("$(basename "$old")")
  fi
  run "${enabling[@]}" disable "${now[@]}" "$(basename "$old")" || true
  run mv "$old" "$old.old"
done
if ! getent passwd filesync >/dev/null; then
  # userdel leaves a group that has members: who installed it before.
  of_group=--user-group
  ! getent group filesync >/dev/null || of_group=--gid=filesync
  run useradd --system $of_group --home-dir $state --no-create-home --shell /usr/sbin/nologin filesync
elif ! getent group filesync >/dev/null; then
  # Of a user that somebody made.
  run groupadd --system filesync
fi
# Whoever installed it may ask it how it is; in a chroot it may be somebody of the machine around it, and elsewhere one whom no file here knows.
person=${SUDO_USER:-root}
if [ "$person" != root ] && getent passwd "$person" >/dev/null && ! id -nG "$person" | tr " " "\n" | grep -qx filesync; then
  if run usermod -aG filesync "$person"; then
    say "$person is in the group filesync from the next login on: then \"filesync status\" needs no sudo"
  else
    say "$person is not in the group filesync, for the reason above: \"filesync status\" needs sudo"
  fi
fi
run install -d -m 755 $prefix $prefix/versions $units "$(dirname $rules)" "$(dirname $command)"
run install -d -m 750 -o root -g filesync $etc
run install -d -m 700 -o root -g root $etc/credentials
if [ -n "$placed" ] || [ ! -e $etc/config.json ]; then
  if [ -e $etc/config.json ]; then
    run cp -p --backup=numbered $etc/config.json $etc/config.json.old
    say "Nothing of $etc/config.json can be used: $config takes its place, and it is kept as $etc/config.json.old"
  fi
  if [ -n "$config" ]; then
    run install -m 640 -o root -g filesync "$config" "$etc/config.json.new"
  else
    # It runs, and waits for somebody who says what it is to do; "filesync init" knows it by its text.
    run install -m 640 -o root -g filesync "$source/deploy/empty.config.json" "$etc/config.json.new"
  fi
  run sync -f $etc
  run mv $etc/config.json.new $etc/config.json
  # At its place: what it names beside itself is looked for there.
  if [ -z "$dry" ] && ! problems=$("$fresh/bin/filesync" check --config $etc/config.json 2>&1); then
    say "$etc/config.json has mistakes:
$problems"
  fi
elif [ -n "$config" ]; then
  say "$etc/config.json is there already and stays as it is; $config was not used"
fi

# ------------------------------------------------------------------------------------------------------------------------------------------- the program

if [ -z "$dry" ] && [ "$fresh" != "$prefix/versions/$version" ] && [ -d "$prefix/versions/$version" ]; then
  say "$version is installed already, and is damaged: it is put in place anew"
  mended=1
  # What runs is another copy meanwhile: a power cut at any moment leaves one that is whole.
  if [ "$before" = "versions/$version" ]; then
    rm -rf "$room/mended"
    cp -al "$fresh" "$room/mended"
    point_to versions/mended
  fi
  sync -f "$work"
  mv "$prefix/versions/$version" "$work/damaged"
  mv "$fresh" "$prefix/versions/$version"
  [ "$before" != "versions/$version" ] || point_to "$before"
  rm -rf "$room/mended"
  fresh=$prefix/versions/$version
fi
if [ "$before" = "versions/$version" ]; then
  [ -n "$mended" ] || say "$version is installed already"
else
  if [ "$fresh" != "$prefix/versions/$version" ]; then
    sync -f "$work"
    mv "$fresh" "$prefix/versions/$version"
    sync -f $prefix
  elif [ ! -d "$fresh" ]; then
    say "would put $version into $prefix/versions"
  fi
  # From here on the version is on trial (trial.sh): a power cut at any moment leaves one that runs, or is left for the one before.
  if [ -n "$last" ]; then
    run ln -sfn "$last" $prefix/previous.new
    run mv -T $prefix/previous.new $prefix/previous
    # While there is a trial, "previous" is believed.
    run sync -f $prefix
    [ -n "$dry" ] || echo 0 >$prefix/trial
  fi
  point_to "versions/$version"
fi

# These through "current", so that going back goes back here too; the units, which systemd would follow to their end, as files (trial.sh).
link() {
  [ "$(readlink "$2" 2>/dev/null)" = "$1" ] || { run ln -sfn "$1" "$2.new" && run mv -T "$2.new" "$2"; }
}
link $prefix/current/deploy/60-filesync.rules $rules
link $prefix/current/bin/filesync $command
run $prefix/current/deploy/trial.sh units
if [ -n "$booted" ] && command -v udevadm >/dev/null; then
  run udevadm control --reload || true
  # For ports that are in already.
  run udevadm trigger --subsystem-match=tty --action=change || true
fi

if enabled $other; then run "${enabling[@]}" disable "${now[@]}" $other; fi
run "${enabling[@]}" enable "$service" filesync-mount.socket ||
  fail "systemd does not enable it, for the reason above; $version is in place: mend that and run this again"
run sync

# --------------------------------------------------------------------------------------------------------------------------------------------- starting it

if [ -n "$image" ]; then
  [ -z "$booted" ] || run systemctl stop "$service" filesync-mount.socket
  if [ -z "$dry" ] && [ -e $state/journal.db ]; then
    queue=$($prefix/current/bin/filesync status --json --config $etc/config.json | tr -d ' \n' | grep -o '"queue":{[^}]*}' || true)
    case $queue in
      *'"waiting":0,"active":0,"parked":0'*) ;;
      *) fail "not everything is delivered ($queue): deliver it first (systemctl start $service), or give it up (filesync forget, rm -r $state)" ;;
    esac
  fi
  # Who this machine is, and what it knows; made anew at the first start of each copy. The certificate: by "filesync init --ground".
  certified=''
  [ ! -e $etc/certs/ftp.key ] || certified=1
  unmount_disks
  run rm -rf $state $etc/certs/ftp.key $etc/certs/ftp.crt
  run sync
  is=is
  if [ -n "$dry" ]; then
    is='would be'
    say "It would be ready to be copied: each copy takes an identity of its own at its first start."
  else
    say "Ready to be copied: each copy takes an identity of its own at its first start."
  fi
  [ -z "$certified" ] || say "The FTP server's certificate $is gone, with its key. On each copy: sudo filesync init --ground --yes (it makes another, and prints what vehicles need), then: sudo systemctl restart $service"
  stays=$(find $etc -type f ! -path $etc/config.json ! -path $etc/certs/ftp.key ! -path $etc/certs/ftp.crt 2>/dev/null || true)
  say "In every copy would be: what $etc/config.json says, passwords in it too${stays:+; and these, which may be secrets:
$stays}"
  say "Looking for files that it has elsewhere"
  arrived=$(files_elsewhere)
  [ -z "$arrived" ] || say "And files of the user filesync, in:
$arrived"
  exit 0
fi
if [ -z "$start" ] && [ -n "$dry" ]; then
  say "would start at the next boot, or by: systemctl start $service"
  exit 0
fi
if [ -z "$start" ]; then
  say "Installed: $version. It starts at the next boot, or by: systemctl start $service"
  exit 0
fi
if [ -n "$dry" ]; then
  say "would start $service and wait until it is ready"
  exit 0
fi

systemctl start filesync-mount.socket || say "disks cannot be mounted without root: systemctl status filesync-mount.socket says why"
since=$(date +%s)
# What has run before is not started anew if it is this version already, and its configuration too.
if [ "$before" = "versions/$version" ] && [ -z "$placed$mended" ] && [ ! -e $prefix/trial ] && systemctl -q is-active "$service"; then
  say "$version runs: $(systemctl show -P StatusText "$service")"
  exit 0
fi
systemctl restart --no-block "$service"
# The one before may still be active, or be so again; the mark of the trial goes when this one is, or, last of all, when the other is back.
until systemctl -q is-active "$service" && [ ! -e $prefix/trial ] && [ "$(readlink $prefix/current)" = "versions/$version" ]; do
  result=$(systemctl show -P ActiveState "$service")
  if [ "$result" = failed ] || [ $(($(date +%s) - since)) -gt $ready_seconds ] || { [ ! -e $prefix/trial ] && [ "$(readlink $prefix/current)" != "versions/$version" ]; }; then
    said=''
    # Not the words of the one that systemd has put back by now.
    [ "$(readlink $prefix/current)" != "versions/$version" ] || said=$(systemctl show -P StatusText "$service")
    echo "$version did not become ready${said:+ ($said)}. Its last words:" >&2
    journalctl -q --no-pager -o cat -n 15 -u "$service" --since "@$since" >&2 || true
    if [ -n "$last" ] && [ "$last" != "versions/$version" ]; then
      [ "$(readlink $prefix/current)" != "versions/$version" ] || "$prefix/versions/$version/deploy/trial.sh" back >&2
      systemctl restart --no-block "$service"
      for _ in $(seq $ready_seconds); do
        if systemctl -q is-active "$service"; then fail "${last#versions/} runs again; the failed version is in $prefix/versions/$version"; fi
        sleep 1
      done
      fail "${last#versions/}, the version before, is back, and does not become ready either: systemctl status $service"
    fi
    [ ${#aside[@]} = 0 ] || fail "mend what is said above, and run this again"
    fail "mend what is said above, then: systemctl restart $service"
  fi
  sleep 0.5
done
# What is neither this version nor the one to go back to.
for old in "$prefix"/versions/*; do
  case versions/$(basename "$old") in "$(readlink $prefix/current)" | "$(readlink $prefix/previous 2>/dev/null)") ;; *) rm -rf "$old" ;; esac
done
say "$version is ready after $(($(date +%s) - since)) s: $(systemctl show -P StatusText "$service")"
if cmp -s $etc/config.json $prefix/current/deploy/empty.config.json; then
  say "It has nothing to do yet: \"sudo filesync init\" asks what, then: sudo systemctl restart $service"
fi
say "Its configuration: $etc/config.json (then: systemctl reload $service). How it stands: filesync status. What it says: journalctl -u $service"
