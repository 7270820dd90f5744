v=/sys/firmware/efi/efivars; f=$(ls $v/BootOrder-* 2>/dev/null | head -n 1); need "${f:-none}"; cat "$f" >was; chattr -i "$f"; undo "chattr +i $f"; cat was >"$f"
