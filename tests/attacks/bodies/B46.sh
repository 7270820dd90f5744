[ ! -e /run/nextroot ] || skip 'there is /run/nextroot already'; undo 'rmdir /run/b46 /run/nextroot'
mkdir /run/b46 && mv -T /run/b46 /run/nextroot && [ -d /run/nextroot ]
