need /dev/nvram; : >>/dev/nvram
