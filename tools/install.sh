#!/bin/sh
# Installs what vcl needs on this machine and makes .venv. Safe to run again: it does only what is missing.
# Debian and Ubuntu: by apt-get (with sudo when not root). Elsewhere it prints the packages and stops.
set -eu
cd "$(dirname "$0")/.."

DEBIAN="python3 python3-venv python3-pip python3-libvirt python3-rados python3-rbd
 libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system libvirt-clients
 qemu-system-x86 qemu-utils qemu-block-extra ovmf seabios ipxe-qemu busybox-static cpio kmod zstd xz-utils e2fsprogs xorriso
 libxml2-utils
 util-linux iproute2 nftables openssl ceph-common ceph-mon ceph-osd ceph-mgr
 nut-server nut-client systemd"

other_distributions() {
  cat >&2 <<'LIST'
vcl needs these packages; install them and run the same command again.

  Gentoo (emerge):
    dev-lang/python dev-python/libvirt-python sys-cluster/ceph app-emulation/libvirt app-emulation/qemu
    sys-firmware/edk2-bin sys-apps/busybox app-arch/cpio dev-libs/libisoburn sys-kernel/gentoo-kernel-bin
    net-firewall/nftables sys-apps/iproute2 dev-libs/openssl sys-power/nut   (for the lab)
    (USE: app-emulation/libvirt "qemu virt-network", app-emulation/qemu "qemu_softmmu_targets_x86_64 vnc rbd",
     sys-apps/busybox "static")
  Fedora (dnf install):
    python3 python3-pip libvirt-daemon-kvm libvirt-client python3-libvirt python3-rados python3-rbd
    ceph-common ceph-mon ceph-osd ceph-mgr
    qemu-system-x86-core qemu-block-rbd qemu-img edk2-ovmf busybox cpio xorriso kernel-core nftables iproute openssl
  Arch (pacman -S):
    python python-pip libvirt libvirt-python ceph qemu-base qemu-block-rbd qemu-img edk2-ovmf busybox cpio libisoburn linux
    nftables iproute2 openssl
LIST
}

missing_commands() {
  for command in python3 libvirtd virsh qemu-system-x86_64 qemu-img busybox cpio xorriso \
    ceph ceph-mon ceph-osd; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null 2>&1 || printf '%s ' "$command"
  done
}

if command -v apt-get >/dev/null 2>&1; then
  missing=""
  for package in $DEBIAN; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
  done
  if [ -n "$missing" ]; then
    as_root=""
    if [ "$(id -u)" -ne 0 ]; then
      command -v sudo >/dev/null 2>&1 || {
        echo "error: these packages are missing, and there is no sudo: run as root: apt-get install$missing" >&2
        exit 1
      }
      as_root=sudo
    fi
    echo "installing, which takes a minute or two:$missing"
    mkdir -p build
    # shellcheck disable=SC2086 # a list of words
    { $as_root apt-get update -q &&
      $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
    } > build/install.log 2>&1 || {
      tail -n 20 build/install.log >&2
      echo "error: apt-get failed; all it said is in build/install.log" >&2
      exit 1
    }
  fi
else
  missing=$(missing_commands)
  if [ -n "$missing" ]; then
    other_distributions
    echo "error: not found here: $missing" >&2
    exit 1
  fi
fi

# rados, rbd and libvirt come from the distribution, built for its own Python: the environment must see them.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
wanted=$("$python" -c 'import sys; print(*sys.version_info[:2])')
have=$(.venv/bin/python -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null || true)
here=$(pwd -P)
made_for=$(cat .venv/.made-for 2>/dev/null || true) # a copied or moved environment points at the old place
if [ "$wanted" != "$have" ] || [ "$made_for" != "$here" ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
  echo "making .venv"
  rm -rf .venv
  "$python" -m venv --system-site-packages .venv
  printf '%s\n' "$here" > .venv/.made-for
fi
if [ ! -e .venv/.ready ] || [ pyproject.toml -nt .venv/.ready ] || [ tools/install.sh -nt .venv/.ready ]; then
  echo "installing Python packages into .venv (once)"
  .venv/bin/python tools/requirements.py > .venv/requirements.txt
  .venv/bin/python -m pip install -q --disable-pip-version-check -r .venv/requirements.txt
  .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -e .
  touch .venv/.ready
fi
