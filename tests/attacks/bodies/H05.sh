[ -d /run/adamant ] || skip 'no /run/adamant'; mv /run/adamant /run/evil-folder && undo 'mv /run/evil-folder /run/adamant'; [ ! -d /run/adamant ]
