f=$(find /run/adamant -type f 2>/dev/null | head -n 1); need "${f:-none}"; cp -a "$f" was; undo "cp -a was $f"; echo evil >>"$f" && grep -q evil "$f"
