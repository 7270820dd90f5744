mkdir a; touch a/evil; [ -d /run/adamant ] || skip 'no /run/adamant'; mount --bind a /run/adamant && undo 'umount -l /run/adamant'
host test -e /run/adamant/evil
