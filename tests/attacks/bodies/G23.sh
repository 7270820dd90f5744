undo "chattr -i /var"; chattr +i /var && lsattr -d /var | grep -q -- "^[^ ]*i"
