/** Where a coordinator leaves what a replica missed, so that it outlives a restart of this node. */
import type { SunwiseError } from '../base/errors.ts'
import type { Durability } from '../config.ts'

/** Kept for a replica that is out of reach, and handed to it when it answers again. */
export type HintKeeper = {
  /** This node's own replica has the key: the state it has then is what will be sent. Never fails: what finds no room is repaired. */
  missed(target: string, bucketId: number, key: Uint8Array): void
  /** This node is no replica of the key: the versions themselves are kept, as durably as asked once `done` came without an error. */
  keep(
    target: string,
    bucketId: number,
    key: Uint8Array,
    set: Uint8Array,
    durability: Durability,
    done: (error: SunwiseError | undefined, isDurable: boolean) => void,
  ): void
}
