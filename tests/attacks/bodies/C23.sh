need dmsetup; set -- $(dmsetup table "$dm"); [ "$3" = verity ] || exit
size=$2; shift 3; undo "$poke dm load $dm $size verity '$*'"; $poke dm load "$dm" "$size" verity "$1 $2 $3 $4 $5 $6 $7 $8 $9 ${10} 1 ignore_corruption" && dmsetup table "$dm" | grep -o ignore_corruption
