#!/bin/bash
# build.sh DIR: a Debian machine for QEMU, from Debian's packages: DIR/vmlinuz, initrd.img, root.img (never booted itself: each run has an
# overlay) and id, the key of its root. Needs root, and the network; about a minute. The machine itself needs no network.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
dir=$1
suite=bookworm
# systemd and udev as on a companion computer; what makes and checks file systems; what transfers and faults are made with.
packages=systemd,systemd-sysv,libpam-systemd,udev,dbus,kmod,linux-image-amd64,initramfs-tools,busybox,zstd
packages+=,openssh-server,openssh-sftp-server,iproute2,rsync,python3,e2fsprogs,dosfstools,exfatprogs,fdisk,strace,sudo,ca-certificates,curl,libstdc++6

cd "$dir"
root=$dir/rootfs
ssh-keygen -q -t ed25519 -N '' -C filesync-vm -f id

# The hooks have arguments of their own.
# shellcheck disable=SC2016
mmdebstrap --quiet --mode=root --variant=apt --format=directory \
  --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"; printf "MODULES=list\nCOMPRESS=gzip\n" >"$1/etc/initramfs-tools/conf.d/vm"' \
  --customize-hook='printf "virtio_pci\nvirtio_blk\next4\ncrc32c_generic\n" >>"$1/etc/initramfs-tools/modules"; chroot "$1" update-initramfs -u -k all' \
  --include="$packages" "$suite" "$root"

mv "$root"/boot/vmlinuz-* vmlinuz
mv "$root"/boot/initrd.img-* initrd.img
rm -rf "${root:?}"/boot/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*

# The Node.js that runs this.
install -Dm755 "$NODE" "$root/usr/bin/node"

install -d -m700 "$root/root/.ssh"
install -m600 id.pub "$root/root/.ssh/authorized_keys"
printf 'UseDNS no\nPermitRootLogin prohibit-password\n' >"$root/etc/ssh/sshd_config.d/vm.conf"
echo vm >"$root/etc/hostname"
echo '127.0.0.1 localhost vm' >"$root/etc/hosts"
echo '/dev/vda / ext4 defaults,errors=remount-ro 0 1' >"$root/etc/fstab"
mkdir -p "$root/etc/systemd/network" "$root/etc/systemd/journald.conf.d"
printf '[Match]\nName=e*\n[Network]\nAddress=10.0.2.15/24\n' >"$root/etc/systemd/network/10.network"
# What a program says is evidence: all of it is kept.
printf '[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n' >"$root/etc/systemd/journald.conf.d/vm.conf"
chroot "$root" systemctl -q enable systemd-networkd ssh
chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
  dpkg-db-backup.timer getty@tty1.service systemd-networkd-wait-online.service
chroot "$root" passwd -q -d root

truncate -s 8G root.img
mkfs.ext4 -q -F -L root -d "$root" root.img
rm -rf "$root"
