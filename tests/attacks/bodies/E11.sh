ran "$(unshare -m sh -c "mount -t tmpfs tmpfs /opt && cp $poke /opt/evil && /opt/evil hello")"
