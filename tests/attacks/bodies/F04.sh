everyone
$poke mem-write 1
