v=/sys/firmware/efi/efivars; need $v/; f=$v/BootNext-8be4df61-93ca-11d2-aa0d-00e098032b8c; undo "chattr -i $f; rm -f $f"; printf '\007\000\000\000\000\000' >$f && [ -s $f ]
