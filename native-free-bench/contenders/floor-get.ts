/**
 * The floor of a resident get: hash 16 key bytes, probe a table of u32 (8 tag bits, 24 bits of record number) in a
 * SharedArrayBuffer, compare the key, copy 100 value bytes out. Two cache misses and a copy, with no versions, no lengths,
 * no writer beside it and no checks: nothing that stores this data and answers in JavaScript can do less.
 */

import type { Hosted } from '../isolate.ts'
import { KeySet, keyBytes, valueBytes, writeKey } from '../key-set.ts'
import { timeLoop } from '../timing.ts'

type Options = { readonly keys: number; readonly roundMs: number }

const keyWords = keyBytes / 4
const valueWords = valueBytes / 4
const recordWords = keyWords + valueWords

export function open({ keys, roundMs }: Options): Hosted {
  const set = new KeySet(keys)
  const slots = 2 ** Math.ceil(Math.log2(keys * 2))
  const mask = slots - 1
  const table = new Uint32Array(new SharedArrayBuffer(slots * 4))
  const records = new Uint32Array(new SharedArrayBuffer(keys * recordWords * 4))
  const key = new Uint32Array(keyWords)
  const keyView = new Uint8Array(key.buffer)
  const value = new Uint32Array(valueWords)
  const probes = new Uint32Array(set.probeKeys().buffer)

  const hashOf = (words: Uint32Array, at: number): number => {
    let hash = Math.imul(words[at]! ^ 0x9e3779b9, 0x85ebca6b)
    hash = Math.imul((hash >>> 15) ^ hash ^ words[at + 1]!, 0xc2b2ae35)
    hash = Math.imul((hash >>> 15) ^ hash ^ words[at + 2]!, 0x85ebca6b)
    hash = Math.imul((hash >>> 15) ^ hash ^ words[at + 3]!, 0xc2b2ae35)
    return (hash ^ (hash >>> 16)) >>> 0
  }

  const insert = (index: number): void => {
    writeKey(index, keyView, 0)
    const base = index * recordWords
    records.set(key, base)
    new Uint8Array(records.buffer).set(set.value(index), (base + keyWords) * 4)
    const hash = hashOf(key, 0)
    let slot = hash & mask
    while (table[slot] !== 0) slot = (slot + 1) & mask
    table[slot] = ((hash & 0xff000000) | (index + 1)) >>> 0
  }

  /** Copies the value of the key at `probes[at]` into `value`; false if there is none. */
  const get = (at: number): boolean => {
    const hash = hashOf(probes, at)
    const tag = hash >>> 24
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const entry = Atomics.load(table, slot)
      if (entry === 0) return false
      if (entry >>> 24 !== tag) continue
      const base = ((entry & 0xffffff) - 1) * recordWords
      if (
        records[base] !== probes[at] ||
        records[base + 1] !== probes[at + 1] ||
        records[base + 2] !== probes[at + 2] ||
        records[base + 3] !== probes[at + 3]
      ) {
        continue
      }
      for (let word = 0; word < valueWords; word++) value[word] = records[base + keyWords + word]!
      return true
    }
  }

  for (let index = 0; index < keys; index++) insert(index)
  let probe = 0
  const work = (count: number): void => {
    for (let done = 0; done < count; done++) {
      if (!get(probe * keyWords)) throw new Error('The floor lost a key')
      if (++probe === set.probeCount) probe = 0
    }
  }
  return { run: () => timeLoop(roundMs, 1000, work), close: () => {} }
}
