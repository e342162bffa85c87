/** An lmdb database in the scratch directory, filled with a key set, for the contenders that read and write one. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { open as openLmdb, type RootDatabase, type RootDatabaseOptionsWithPath } from 'lmdb'
import { KeySet, keyBytes, keyText, writeKey } from '../key-set.ts'

export type LmdbSettings = {
  readonly scratch: string
  readonly name: string
  readonly keys: number
  /** Keys as bytes, or as strings in lmdb's ordered encoding. */
  readonly keyKind: 'bytes' | 'text'
  readonly options?: Partial<RootDatabaseOptionsWithPath>
}

/** Opens a fresh database and loads `keys` records in one transaction. Values are bytes. */
export async function openFilled(
  settings: LmdbSettings,
): Promise<{ database: RootDatabase<Buffer, Buffer | string>; set: KeySet }> {
  const path = join(settings.scratch, `${settings.name}-${process.pid}`)
  mkdirSync(path, { recursive: true })
  const database = openLmdb<Buffer, Buffer | string>({
    path,
    encoding: 'binary',
    ...(settings.keyKind === 'bytes' ? { keyEncoding: 'binary' as const } : {}),
    mapSize: Math.max(64 * 2 ** 20, settings.keys * 1024),
    ...settings.options,
  })
  const set = new KeySet(settings.keys)
  const key = Buffer.alloc(keyBytes)
  await database.transaction(() => {
    for (let index = 0; index < settings.keys; index++) {
      writeKey(index, key, 0)
      database.putSync(settings.keyKind === 'bytes' ? key : keyText(index), set.value(index))
    }
  })
  return { database, set }
}
