# Makes the image that pods and their containers run: a static busybox, and a page that says who asks for it.
#
# $1: the archive to write, as `docker save` would. $2...: its names.
set -eu
archive=$1
shift
work=$(mktemp -d -p "$(dirname "$archive")")

mkdir -p "$work/root/bin" "$work/root/etc" "$work/root/tmp" "$work/root/www/cgi-bin"
cp "$(command -v busybox)" "$work/root/bin/busybox"
for applet in $(busybox --list); do
    [ "$applet" = busybox ] || ln -s busybox "$work/root/bin/$applet"
done
echo 'root:x:0:0:root:/:/bin/sh' >"$work/root/etc/passwd"
cat >"$work/root/www/cgi-bin/who" <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n%s %s\n' "$(hostname)" "$REMOTE_ADDR"
CGI
chmod 755 "$work/root/www/cgi-bin/who"

tar -C "$work/root" --numeric-owner --owner=0 --group=0 -cf "$work/layer.tar" .
digest=$(sha256sum "$work/layer.tar" | cut -d ' ' -f 1)
architecture=$(dpkg --print-architecture 2>/dev/null || echo amd64)
cat >"$work/config.json" <<JSON
{"architecture": "$architecture", "os": "linux",
 "config": {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$digest"]}}
JSON
names=
for name; do names="$names${names:+, }\"$name\""; done
echo "[{\"Config\": \"config.json\", \"RepoTags\": [$names], \"Layers\": [\"layer.tar\"]}]" >"$work/manifest.json"
tar -C "$work" -cf "$archive" manifest.json config.json layer.tar
rm -rf "$work"
