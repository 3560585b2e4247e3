#!/bin/bash
# make-bundle.sh [--arch arm64|x64] [--node VERSION|none] [--out DIR]: one archive with FileSync, what it depends on, and Node.js: what a machine needs
# that has no network and no Node.js. From a checkout, or from what "npm pack" made of it; needs Node.js with npm, and the network of npm.
# It prints the archive's path.
set -euo pipefail

die() {
  echo "make-bundle.sh: $*" >&2
  exit 2
}

# Itself, not a link that leads to it; nothing where it came through a pipe.
self=$(readlink -f "${BASH_SOURCE[0]:-}") || self=''
[ -f "$self" ] || self=''
here=${self%/*/*}
case $(uname -m) in aarch64) arch=arm64 ;; *) arch=x64 ;; esac
node=24
out=$PWD
stage=
while [ $# -gt 0 ]; do
  case $1 in
    --arch | --node | --out | --stage)
      [ $# -gt 1 ] || die "$1 needs a value"
      declare "${1#--}=$2"
      shift
      ;;
    -h | --help)
      [ -n "$self" ] || die "it came through a pipe, and cannot read itself: download it first"
      sed -n '2,4s/^# //p' "$self"
      exit 0
      ;;
    *) die "there is no option $1; --help lists them" ;;
  esac
  shift
done
case $arch in
  arm64 | x64) ;;
  # There is none to take along.
  arm) [ "$node" = none ] || die "a 32-bit system needs a Node.js of its own, 22.13 or newer: --node none, or install from a checkout there" ;;
  *) die "--arch is arm64 or x64, not $arch" ;;
esac
# Anybody's directory around a copy of the script is not to be packed.
is_filesync() { [ -r "$1/package.json" ] && [[ $(<"$1/package.json") == *$'\n  "name": "filesync",\n'* ]]; }
if [ -z "$self" ] || ! is_filesync "$here"; then
  alone="it came through a pipe"
  [ -z "$self" ] || alone="$self is a copy by itself"
  die "$alone, without FileSync around it: run the deploy/make-bundle.sh of a checkout, or of what \"npm pack\" made of it"
fi
command -v npm >/dev/null || die "npm is not here: install Node.js 20.19 or newer with npm"
[ -d "$out" ] || die "$out is no directory"
out=$(cd "$out" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# For each package that it cannot have npm would wait minutes. On a small machine that is busy npm itself takes half a minute. With a cache of its own: from
# that of before it would answer without a network; who has all there says so to npm (`npm config set offline true`).
asked=(--cache "$work/asked")
if [ "$(cd "$here" && npm config get offline)" = true ] || [ "$(cd "$here" && npm config get prefer-offline)" = true ]; then asked=(); fi
if ! words=$(cd "$here" && timeout 180 npm view rxjs version "${asked[@]}" --fetch-retries=0 --fetch-timeout=10000 --loglevel=error 2>&1); then
  words=$(sed -nE 's/^npm (error|ERR!) (code )?//p' <<<"$words" | head -n 1)
  die "npm's registry ($(cd "$here" && npm config get registry 2>/dev/null)) cannot be reached: ${words:-it does not answer}"
fi

quiet=(--ignore-scripts --no-audit --no-fund --loglevel=error)

# What npm publishes of it, built.
if [ -e "$here/tsconfig.json" ]; then
  (
    cd "$here"
    if [ ! -d node_modules ]; then
      echo "npm fetches what it is built with" >&2
      npm ci "${quiet[@]}" >&2
    fi
    npx --no-install tsc -b >&2
    npm pack "${quiet[@]}" --pack-destination "$work" >/dev/null
  )
  tar -xzf "$work"/filesync-*.tgz -C "$work"
  cp "$here/package-lock.json" "$work/package/"
  install_with=ci
else
  mkdir "$work/package"
  tar -C "$here" --exclude=./node_modules -c . | tar -C "$work/package" -x
  # Without a lock npm asks for these too, though it leaves them out.
  (cd "$work/package" && npm pkg delete devDependencies)
  install_with=install
fi
cd "$work/package"
echo "npm fetches what it depends on" >&2
npm "$install_with" --omit=dev --os=linux --cpu="$arch" "${quiet[@]}" >&2
# Libraries of other systems, which some packages bring along.
for dir in node_modules/*/prebuilds/* node_modules/@*/*/prebuilds/*; do
  case $dir in *"/linux-$arch" | *"*"*) ;; *) rm -rf "$dir" ;; esac
done
find node_modules -name '*.musl.node' -delete

if [ "$node" != none ]; then
  npm pack "node-linux-$arch@$node" "${quiet[@]}" --pack-destination "$work" >/dev/null
  mkdir "$work/node" node
  tar -xzf "$work"/node-linux-*.tgz -C "$work/node" --strip-components=1
  mkdir node/bin
  cp "$work/node/bin/node" node/bin/node
  cp "$work/node/LICENSE" node/ 2>/dev/null || true
fi
# What only the sources have is named, and not linked.
node - <<'end'
const { existsSync, readdirSync, readFileSync, writeFileSync } = require("node:fs");
const { dirname, join } = require("node:path");
for (const page of ["README.md", ...readdirSync("docs", { recursive: true }).map((name) => join("docs", name))]) {
  if (!page.endsWith(".md")) continue;
  const named = (link, text, to) => (/^\w+:/.test(to) || existsSync(join(dirname(page), to)) ? link : `${text} (in the sources)`);
  writeFileSync(page, readFileSync(page, "utf8").replace(/\[([^\]\n]*)\]\(([^)\s#]+)(#[^)\s]*)?\)/g, named));
}
end
mkdir bin
cp deploy/filesync bin/filesync
chmod 755 bin/filesync deploy/*.sh
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' package.json)
echo "$arch" >ARCH
# Also names this build: two of one version differ here.
find . -type f ! -name SHA256SUMS -print0 | LC_ALL=C sort -z | xargs -0 sha256sum >"$work/SHA256SUMS"
mv "$work/SHA256SUMS" SHA256SUMS

if [ -n "$stage" ]; then
  mv "$work/package" "$stage"
  exit 0
fi
name=filesync-$version-linux-$arch
mv "$work/package" "$work/$name"
tar -C "$work" --owner=0 --group=0 --sort=name -czf "$out/$name.tar.gz.new" "$name"
mv "$out/$name.tar.gz.new" "$out/$name.tar.gz"
echo "$out/$name.tar.gz"
