everyone
$poke vm-write 1
