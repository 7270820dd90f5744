v=/sys/firmware/efi/efivars; f=$(ls $v/Boot000[0-9]-* 2>/dev/null | tail -n 1); need "${f:-none}"; cat "$f" >was; chattr -i "$f"; undo "cat was >$f"; rm -f "$f"; [ ! -e "$f" ]
