#!/bin/sh
# fetch.sh FOLDER ARCHITECTURE PATTERN: gets the newest Debian package whose name matches the regular expression, unpacks it
# as FOLDER/PACKAGE, and prints that path. The host's apt is not touched: lists and state are in FOLDER/apt.
set -eu

folder=$1 architecture=$2 pattern=$3
state=$folder/apt
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
: >"$state/status"
for suite in bullseye bookworm bookworm-backports trixie-backports; do
	echo "deb [arch=amd64,arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main"
done >"$state/sources.list"

apt() {
	command=$1
	shift
	"$command" -q -oAPT::Architecture="$architecture" -oAPT::Architectures::="$architecture" -oAPT::Sandbox::User=root \
		-oDir::Etc::sourcelist="$state/sources.list" -oDir::Etc::sourceparts=/dev/null -oDir::State="$state" \
		-oDir::State::status="$state/status" -oDir::State::Lists="$state/lists" -oDir::Cache="$state/cache" "$@"
}

newest() {
	apt apt-cache pkgnames | grep -E "^$pattern\$" | sort -V | tail -n 1
}

refuse() {
	echo "fetch.sh: $1" >&2
	tail -n 5 "$state/log" >&2
	exit 1
}

apt apt-get update >"$state/log" 2>&1 || refuse "apt-get update failed, so that no package can be found"
package=$(newest)
[ -n "$package" ] || refuse "no Debian package for $architecture is named like $pattern"
mkdir -p "$state/packages"
cd "$state/packages"
apt apt-get download "$package:$architecture" >"$state/log" 2>&1 || refuse "cannot download $package for $architecture"
rm -rf "$folder/unpacking"
dpkg-deb -x "$(find . -name "${package}_*_$architecture.deb" | sort -V | tail -n 1)" "$folder/unpacking"
mv "$folder/unpacking" "$folder/$package"
echo "$folder/$package"
