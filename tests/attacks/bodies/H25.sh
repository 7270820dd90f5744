f=$(find /run/adamant -type f 2>/dev/null | head -n 1); need "${f:-none}"; cp -a "$f" was; undo "cat was >$f; rm -f /run/h25"; ln "$f" /run/h25 && echo evil >/run/h25 && grep -q evil "$f"
