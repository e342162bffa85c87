/**
 * Which version each dot was ever seen to name. A dot names one write of one key for ever, whoever holds it: an actor that issues one twice
 * makes others drop what they have not seen, since they believe that they had it.
 */
import { partitionOfKey } from '../../../src/cluster/slots.ts'
import { ActorRegistry } from '../../../src/versions/actor-registry.ts'
import { decodeSet } from '../../../src/versions/set-codec.ts'

export class DotLedger {
  readonly #actors = new ActorRegistry()
  readonly #named = new Map<string, string>()

  /** Dots seen so far. */
  get count(): number {
    return this.#named.size
  }

  /** Takes in what a replica has of a key, encoded. What is wrong with it; undefined: nothing. */
  note(key: string, bytes: Uint8Array): string | undefined {
    const set = decodeSet(bytes, 0, bytes.length, this.#actors.indexOf)
    if (typeof set === 'string') return `a version set of ${key} cannot be read: ${set}`
    const partition = partitionOfKey(Buffer.from(key))
    for (const { actor, counter, tombstone, value } of set.versions) {
      const dot = `${partition}/${actor}.${counter}`
      const text = `${key} ${tombstone ? 'deleted' : Buffer.from(value).toString('latin1').trimEnd()}`
      const before = this.#named.get(dot)
      if (before === undefined) this.#named.set(dot, text)
      else if (before !== text) return `one dot for two writes: ${before}, and ${text}`
    }
    return undefined
  }
}
