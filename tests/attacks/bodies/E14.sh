ran "$(user unshare --user --map-root-user --mount sh -c "mount -t tmpfs tmpfs /tmp && cp $poke /tmp/evil && /tmp/evil hello")"
