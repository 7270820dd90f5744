everyone
$poke trace 1
