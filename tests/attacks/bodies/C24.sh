undo "dmsetup rename --noudevsync evil $dm"; $poke dm rename "$dm" evil && [ "$(cat "/sys/dev/block/$root/dm/name")" = evil ]
