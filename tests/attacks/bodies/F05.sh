everyone
$poke steal 1 1
