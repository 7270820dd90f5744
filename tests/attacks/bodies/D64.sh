need /dev/rtc0; byte() { printf %02x000000 "$1"; }; set -- $(date -u '+%-S %-M %-H %-d %-m %-Y')
undo "$poke ioctl /dev/rtc0 0x4024700a @$(byte "$1"; byte "$2"; byte "$3"; byte "$4"; byte $(($5 - 1)); byte $(($6 - 1900)))"
$poke ioctl /dev/rtc0 0x4024700a "@$(byte 0; byte 0; byte 0; byte 1; byte 0; byte 101)"
