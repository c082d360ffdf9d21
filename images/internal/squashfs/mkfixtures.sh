#!/bin/sh
# Makes the images in testdata, which are of one tree in every form: run as root
# in this directory, with squashfs-tools and python3.
set -eu
tree=$(mktemp -d) && trap 'rm -rf "$tree"' EXIT
cd "$tree"
umask 022
mkdir -p bin etc dev many deep/er
printf '#!/bin/true\n' >bin/sh && chmod 4755 bin/sh
echo root:x:0:0 >etc/passwd
ln etc/passwd etc/same && ln -s passwd etc/link
chown 1000:70000 deep && chmod 1777 deep
: >deep/empty
seq 1 2500 >deep/er/numbers                       # blocks and a fragment
head -c 5000 /dev/urandom >deep/er/random        # blocks that do not pack
truncate -s 20000 deep/er/hole && echo end >>deep/er/hole
for i in $(seq 300); do echo "$i" >"many/a-rather-long-name-$i"; done
mkfifo deep/fifo && mknod dev/null c 1 3 && ln dev/null dev/void
printf x >"$(printf 'deep/\377latin')"
python3 - <<'PYTHON'
import os
os.setxattr("etc/passwd", "user.note", b"hello")
os.setxattr("deep/er/numbers", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
for name in "many", "deep":
    os.setxattr(name, "user.big", b"v" * 1000)
os.setxattr("deep", "user.other", b"v" * 1000)
PYTHON
find . -exec touch -h -d 2026-01-02T03:04:05Z {} +
cd - >/dev/null
mkdir -p testdata
make() { rm -f "testdata/$1.squashfs"; mksquashfs "$tree" "testdata/$@" -b 4096 -mkfs-time 0 -no-progress -quiet -nopad; mv "testdata/$1" "testdata/$1.squashfs"; }
make gzip -comp gzip
make xz -comp xz
make zstd -comp zstd
make lz4 -comp lz4
make plain -noI -noD -noF -noX -noId
make whole -comp gzip -no-fragments -no-exports -no-xattrs
make lzo -comp lzo
