everyone
$poke trace 1 seize
