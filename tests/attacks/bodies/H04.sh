f=$(find /run/adamant -type f 2>/dev/null | head -n 1); need "${f:-none}"; cp -a "$f" was; undo "cp -a was $f"; undo 'rm -f /run/evil'; echo evil >/run/evil; mv /run/evil "$f" && grep -q evil "$f"
