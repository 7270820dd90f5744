v=/sys/firmware/efi/efivars; need $v/; [ "$(ls $v | wc -l)" -gt 0 ] || mount -t efivarfs efivarfs $v; f=$v/LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f; undo "chattr -i $f; rm -f $f"
printf '\007\000\000\000e\000v\000i\000l\000\000\000' >$f && [ -s $f ]
