"""A client of its own: `rbd_child.py CONF USER POOL NAMESPACE IMAGE` writes to the image, prints its address,
and closes it in order when its input ends. It is killed when a test wants a client that dies."""

import sys

import rados
import rbd


def main(conf: str, user: str, pool: str, namespace: str, image: str) -> None:
    with rados.Rados(conffile=conf, name=f"client.{user}") as cluster, cluster.open_ioctx(pool) as context:
        context.set_namespace(namespace)
        with rbd.Image(context, image) as opened:
            opened.write(b"x" * 512, 0)
            opened.flush()
            print(cluster.get_addrs(), flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
