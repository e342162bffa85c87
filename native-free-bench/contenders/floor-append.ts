/**
 * The floors of a put: records appended to a pre-allocated file, one `write` per group. With `sync` each group is followed
 * by `fdatasync`, which is what one writer who trusts nothing but the disk gets; without, the kernel keeps the bytes.
 */
import { closeSync, fdatasyncSync, fsyncSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Measurement } from '../case.ts'
import type { Hosted } from '../isolate.ts'
import { keyBytes, valueBytes } from '../key-set.ts'

type Options = {
  readonly scratch: string
  readonly roundMs: number
  /** Records per write. */
  readonly group: number
  readonly sync: boolean
}

const fileBytes = 16 * 2 ** 20
const blockBytes = 2 ** 20

export function open({ scratch, roundMs, group, sync }: Options): Hosted {
  const path = join(scratch, `append-${process.pid}`)
  const file = openSync(path, 'w+')
  const block = Buffer.alloc(blockBytes)
  for (let at = 0; at < fileBytes; at += blockBytes) writeSync(file, block, 0, blockBytes, at)
  fsyncSync(file)
  const groupBytes = group * (keyBytes + valueBytes)
  const bytes = Buffer.alloc(groupBytes, 7)
  let at = 0
  const commit = (): void => {
    if (at + groupBytes > fileBytes) at = 0
    writeSync(file, bytes, 0, groupBytes, at)
    at += groupBytes
    if (sync) fdatasyncSync(file)
  }
  const run = (): Measurement => {
    let commits = 0
    let elapsedMs = 0
    const start = performance.now()
    do {
      commit()
      commits++
      elapsedMs = performance.now() - start
    } while (elapsedMs < roundMs)
    const operations = commits * group
    return { value: (operations * 1000) / elapsedMs, operations, counts: { 'commits/s': (commits * 1000) / elapsedMs } }
  }
  return {
    run,
    close: () => {
      closeSync(file)
      unlinkSync(path)
    },
  }
}
