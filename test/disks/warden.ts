/**
 * The shell scripts of the laboratory (lab.ts): the warden that makes its namespaces and takes them away again, and the helpers by which
 * mount(8) mounts FAT and exFAT where the kernel has neither.
 */

/** Inside, with the directory $dir: kills all that lives in the mount namespace, unmounts, detaches, and removes $dir. */
export const clean = `
self=$$
ns=$(readlink /proc/self/ns/mnt | tr '[]' '??')
while :; do
  find /proc -mindepth 3 -maxdepth 3 -path '/proc/[0-9]*/ns/mnt' -lname "$ns" >$dir/living 2>/dev/null
  left=
  while IFS=/ read -r _ _ pid _; do
    # find itself is in the list; it is gone by now.
    [ "$pid" = $self ] || ! kill -9 "$pid" 2>/dev/null || left=1
  done <$dir/living
  [ "$left" ] || break
  sleep 0.01
done
tac /proc/self/mounts | while read -r from at _; do
  at=$(printf %b "$at")
  case $from:$at in /dev/loop*|$dir/*|*:$dir/*) umount "$at" 2>/dev/null || umount -l "$at" ;; esac
done
# A process that is just dying closes what it held a moment after it has left the namespace.
tries=0
while [ $tries -lt 500 ] && grep -qs "^$dir/" /sys/devices/virtual/block/loop*/loop/backing_file; do
  for loop in $(grep -ls "^$dir/" /sys/devices/virtual/block/loop*/loop/backing_file); do
    loop=\${loop%/loop/backing_file}; loop=\${loop##*/}
    [ -e /dev/$loop ] || mknod /dev/$loop b 7 \${loop#loop}
    losetup -d /dev/$loop
  done
  sleep 0.01
  tries=$((tries + 1))
done
rm -rf --one-file-system $dir
`;

/**
 * `sh -c warden warden DIR`, started by unshare in namespaces of its own. Prints "ready" and stays until its input ends, which it does too when
 * the test is killed.
 */
export const warden = `
set -e
dir=$1
trap '' INT TERM HUP
mkdir $dir/dev
mount -t tmpfs -o mode=755 tmpfs $dir/dev
for name in null zero full random urandom tty fuse loop-control; do cp -a /dev/$name $dir/dev/; done
mkdir $dir/dev/pts $dir/dev/shm
mount --rbind /dev/pts $dir/dev/pts
mount -t tmpfs tmpfs $dir/dev/shm
mount --move $dir/dev /dev
ln -s /proc/self/fd /dev/fd; ln -s fd/0 /dev/stdin; ln -s fd/1 /dev/stdout; ln -s fd/2 /dev/stderr; ln -s pts/ptmx /dev/ptmx
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/udev/rules.d /run/lock
# Who closes a disk that was open for writing, as losetup does in attaching it, has udevd read its partitions again: a kernel that does not know
# their tables then forgets those that partx told it of.
echo 'SUBSYSTEM=="block", ENV{DEVTYPE}=="disk", OPTIONS:="nowatch"' >/run/udev/rules.d/00-filesync.rules
# By this a process inside is known from outside: the number of a namespace is used again.
echo $dir >/run/filesync-disks
echo $$ >$dir/warden
# Only the laboratory's own disks are listed: lsblk looks here.
mount -t tmpfs tmpfs /sys/block
sbin=$(readlink -f /sbin)
mount -t overlay -o lowerdir=$dir/sbin:$sbin overlay $sbin
ip link set lo up
/lib/systemd/systemd-udevd --daemon --children-max=4 --resolve-names=never
echo ready


set +e
cat >/dev/null
${clean}`;

/** `clean=… sh -c sweep sweep DIR…` takes away what laboratories left whose warden was killed. */
export const sweep = `
for dir; do
  read -r pid <$dir/warden && ! grep -qsxF $dir /proc/$pid/root/run/filesync-disks || continue
  inside=$(grep -lsxF $dir /proc/[0-9]*/root/run/filesync-disks | head -n 1)
  if [ "$inside" ]; then
    nsenter --mount=\${inside%/root/*}/ns/mnt sh -c 'dir=$1; eval "$2"' clean $dir "$clean"
  else
    rm -rf --one-file-system $dir
  fi
done
`;

/**
 * `sh -c port port NODE FILE OPTION…` attaches FILE to the loop device NODE, prints "attached", and holds it open. It is to be detached once
 * nobody has it open: so it goes with this process, unless something is mounted from it.
 */
export const port = `
node=$1 file=$2
shift 2
exec 3<"$node" && losetup "$@" "$node" "$file" && losetup -d "$node" && echo attached && exec sleep infinity
`;

/** Options that the kernel's FAT and exFAT know and the drivers here need not; any other that is not passed on is refused, as mount refuses it. */
const dropped =
  "utf8|utf8=*|iocharset=*|codepage=*|shortname=*|flush|errors=*|quiet|discard|showexec|tz=*|time_offset=*|check=*|usefree|x-*|nofail|noauto|sync|dirsync|lazytime|nodiratime";

const helper = (type: string, passed: string, start: string): string => `#!/bin/sh
device=$1 dir=$2
shift 2
options=
while getopts sfnvN:o:t: flag; do case $flag in f) exit 0 ;; o) options=$OPTARG ;; esac; done
refuse() { echo "mount: $dir: wrong fs type, bad option, bad superblock on $device, missing codepage or helper program, or other error." >&2; exit 32; }
[ "$(blkid -p -o value -s TYPE "$device")" = ${type} ] || refuse
pass=allow_other,fsname=$device mode=rw mask=umask=022 flags=
[ "$(blockdev --getro "$device")" = 0 ] || mode=ro
IFS=,
for option in $options; do
  case $option in
    rw) ;;
    ro) mode=ro ;;
    umask=*) mask=$option ;;
    nosuid|nodev|noexec|noatime|relatime) flags=$flags,$option ;;
    suid|dev|exec|atime) ;;
    ${passed}) pass=$pass,$option ;;
    ${dropped}|fmask=*|dmask=*) ;;
    *) refuse ;;
  esac
done
pass=$pass,$mask
${start}
# The drivers keep some of these to themselves.
[ -z "$flags" ] || mount -i -o "remount,bind,$mode$flags" "$dir"
`;

/** mount.TYPE for `mount -t TYPE`: name → script. */
export const helpers = {
  // In write mode fusefat wants "rw+"; what it cannot do is told in lab.ts.
  "mount.vfat": helper(
    "vfat",
    "uid=*|gid=*",
    `[ $mode = ro ] && pass=$pass,ro || pass=$pass,rw+
fusefat -o "$pass,default_permissions,blkdev,subtype=vfat" "$device" "$dir" >/dev/null || exit 32`,
  ),
  "mount.exfat": helper("exfat", "uid=*|gid=*|fmask=*|dmask=*", `mount.exfat-fuse -o "$pass,$mode" "$device" "$dir" >/dev/null || exit 32`),
} as const;
