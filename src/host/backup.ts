/**
 * Backups of a data directory: the image that a crash at one moment would leave (storage/hold.ts), whose recovery is the one that every
 * start does. Logs are copied whole; tables never change, so a backup into a directory that holds earlier ones copies only those that
 * are new. The manifest comes last, under its name when everything it names is on stable storage: a cut leaves the earlier backups whole.
 *
 * A restored directory gets the rows of the catalog but no actor: the start takes a new one, since writes after the backup are lost.
 */
import { copyFile, open, readdir, realpath, rename, rm, stat, unlink } from 'node:fs/promises'
import { basename, dirname, join, resolve, sep } from 'node:path'
import { crc32 } from 'node:zlib'
import { SunwiseError } from '../base/errors.ts'
import { segmentFileName } from '../storage/commit-log.ts'
import { type HeldShard, heldRows } from '../storage/hold.ts'
import { tableIdOf } from '../storage/sstable.ts'
import { checkTable, checkWithin } from '../storage/table-check.ts'
import { tableFileName } from '../storage/tables.ts'
import {
  type BackupFile,
  type BackupManifest,
  backupLogs,
  backupNumbers,
  encodeManifest,
  isOfBackups,
  manifestName,
  partSuffix,
  readManifest,
  restoringName,
} from './backup-manifest.ts'
import { HostCatalog } from './catalog.ts'
import { acquireDirectoryLock } from './directory-lock.ts'
import { diskError, HostDisk } from './disk.ts'
import { makeDirectories } from './make-directory.ts'
import { nativeCrc32, zstd } from './native-codes.ts'
import type { LogRow } from './node-record.ts'
import { logDirectoryOf, partitionsOf, tablesDirectory } from './reshard.ts'

/** Where a backup comes from: a node that runs, or a directory that nobody uses. */
export type BackupSource = {
  /** The data directory. */
  readonly directory: string
  readonly nodeId: string
  readonly log: LogRow
  /** Rows of the catalog that every node has. */
  readonly rows: readonly (readonly [string, Uint8Array])[]
  readonly shards: readonly HeldShard[]
  /** The logs are copied. */
  releaseLogs(): Promise<void>
  /** Rejects where what was held is held no more. */
  check(): Promise<void>
}

export type BackupProgress = { readonly bytes: number; readonly bytesTotal: number; readonly files: number }

export type BackupSummary = {
  readonly number: number
  readonly files: number
  readonly bytes: number
  /** Of these, those that earlier backups had not copied already. */
  readonly bytesCopied: number
}

export type WriteBackupOptions = {
  /** Backups that stay, this one included; at least 1. */
  readonly keep: number
  readonly onProgress: (progress: BackupProgress) => void
  /** Ends the work; what was copied is removed by the next attempt. */
  readonly signal?: AbortSignal | undefined
  /** Whether every block of a table that is copied is checked. */
  readonly checks: boolean
}

const portionBytes = 1024 * 1024
const directoryMode = 0o700

/**
 * Writes one more backup into a directory, and removes the oldest beyond `keep`. Rejects with DISK_FULL or DISK_FAILED; earlier backups
 * stay whole.
 */
export async function writeBackup(
  source: BackupSource,
  directory: string,
  options: WriteBackupOptions,
): Promise<BackupSummary> {
  try {
    return await new BackupWriter(source, directory, options).write()
  } catch (error) {
    throw error instanceof SunwiseError ? error : diskError('write the backup', directory, error)
  }
}

class BackupWriter {
  readonly #source: BackupSource
  readonly #directory: string
  readonly #options: WriteBackupOptions
  readonly #files: BackupFile[] = []
  #bytes = 0
  #bytesTotal = 0
  #bytesCopied = 0

  constructor(source: BackupSource, directory: string, options: WriteBackupOptions) {
    this.#source = source
    this.#directory = directory
    this.#options = options
  }

  async write(): Promise<BackupSummary> {
    const { keep } = this.#options
    const directory = this.#directory
    if (directory === '') throw new SunwiseError('DIRECTORY_UNUSABLE', 'Cannot back up to "": name a directory')
    const numbers = backupNumbers(directory)
    const number = (numbers.at(-1) ?? 0) + 1
    const { shards, log, nodeId } = this.#source
    const known = new Map<string, BackupFile>()
    for (const earlier of numbers) {
      const manifest = readManifest(directory, earlier)
      if (manifest.nodeId !== nodeId) throw foreign(directory, manifest.nodeId)
      for (const file of manifest.files) known.set(file[0], file)
    }
    await refuseOthers(directory)
    await refuseInside(directory, this.#source.directory, 'back up to')
    makeTarget(join(directory, 'tables'))
    await this.#removeLeftovers(number)
    const tables = new Map(shards.flatMap(({ facts }) => facts.map((each) => [each.tableId, each.fileBytes] as const)))
    for (const { segments } of shards) for (const { bytes } of segments) this.#bytesTotal += bytes
    for (const bytes of tables.values()) this.#bytesTotal += bytes
    for (const [shard, held] of shards.entries()) await this.#copyLog(number, shard, held)
    await this.#source.check()
    await this.#source.releaseLogs()
    for (const [tableId, bytes] of tables) await this.#copyTable(tableFileName(tableId), bytes, known)
    await this.#source.check()
    for (const path of ['tables', 'logs', '']) await syncDirectory(join(directory, path))
    const manifest: BackupManifest = {
      createdMs: Date.now(),
      nodeId,
      generation: log.generation,
      shards: log.shards,
      segmentBytes: log.segmentBytes,
      rows: this.#rows(),
      files: this.#files,
    }
    const path = join(directory, manifestName(number))
    await writeWhole(`${path}${partSuffix}`, encodeManifest(manifest))
    await rename(`${path}${partSuffix}`, path)
    await syncDirectory(directory)
    await prune(directory, [...numbers, number].slice(-keep))
    return { number, files: this.#files.length, bytes: this.#bytes, bytesCopied: this.#bytesCopied }
  }

  /** What attempts left that were cut short; tables are looked at again when they are wanted. */
  async #removeLeftovers(number: number): Promise<void> {
    await rm(join(this.#directory, backupLogs(number)), { recursive: true, force: true })
    for (const folder of ['', 'tables'] as const) {
      for (const name of await readdir(join(this.#directory, folder))) {
        if (!name.endsWith(partSuffix) || !isOfBackups(folder, name)) continue
        await unlink(join(this.#directory, folder, name))
      }
    }
  }

  async #copyLog(number: number, shard: number, { segments }: HeldShard): Promise<void> {
    const folder = `${backupLogs(number)}/${shard}`
    makeDirectories(join(this.#directory, folder), directoryMode)
    const from = join(this.#source.directory, logDirectoryOf(this.#source.log.generation, shard))
    for (const { segment, bytes, head } of segments) {
      const path = `${folder}/${segmentFileName(segment)}`
      const to = join(this.#directory, path)
      const crc =
        head === undefined
          ? await this.#copy(join(from, segmentFileName(segment)), to, bytes)
          : await this.#writeHead(to, head)
      this.#note([path, bytes, crc], true)
    }
    await syncDirectory(join(this.#directory, folder))
    await syncDirectory(join(this.#directory, backupLogs(number)))
  }

  async #writeHead(path: string, head: Uint8Array): Promise<number> {
    await writeWhole(path, head)
    return crc32(head)
  }

  async #copyTable(name: string, bytes: number, known: ReadonlyMap<string, BackupFile>): Promise<void> {
    const path = `tables/${name}`
    const to = join(this.#directory, path)
    const present = known.get(path)
    if (present?.[1] === bytes && (await sizeOf(to)) === bytes) return this.#note(present, false)
    const crc = await this.#copy(join(this.#source.directory, tablesDirectory, name), `${to}${partSuffix}`, bytes)
    if (this.#options.checks) this.#checkTable(name)
    await rename(`${to}${partSuffix}`, to)
    this.#note([path, bytes, crc], true)
  }

  /** A table that is damaged at its source must not take the place of a backup that is not. @throws TABLE_CORRUPT */
  #checkTable(name: string): void {
    const file = new HostDisk(this.#directory).openNow(`tables/${name}${partSuffix}`)
    try {
      const options = { file, tableId: tableIdOf(name.slice(0, 16)), crc32: nativeCrc32, codec: zstd, pace: () => {} }
      // What no shard names of it is history, or was given up.
      const ranges = this.#source.shards.flatMap(({ rows }) =>
        rows.filter(({ tableId }) => tableId === name.slice(0, 16)),
      )
      const { findings } = checkWithin(checkTable(options), ranges)
      if (findings.length === 0) return
      throw unusable(join(this.#source.directory, tablesDirectory, name), findings[0]!.detail)
    } finally {
      file.close()
    }
  }

  #note(file: BackupFile, isCopied: boolean): void {
    this.#files.push(file)
    if (!isCopied) this.#bytes += file[1]
    this.#report()
  }

  #report(): void {
    this.#options.onProgress({ bytes: this.#bytes, bytesTotal: this.#bytesTotal, files: this.#files.length })
  }

  /** Copies the first `bytes` of a file, and syncs the copy. Resolves to their checksum. */
  async #copy(from: string, to: string, bytes: number): Promise<number> {
    const buffer = Buffer.allocUnsafe(portionBytes)
    const source = await open(from, 'r').catch((error: unknown) => {
      throw isMissing(error) ? unusable(from, 'it is missing') : error
    })
    try {
      const target = await open(to, 'w', 0o600)
      try {
        let crc = 0
        for (let at = 0; at < bytes; ) {
          if (this.#options.signal?.aborted === true) throw aborted(this.#directory)
          const { bytesRead } = await source.read(buffer, 0, Math.min(portionBytes, bytes - at), at)
          if (bytesRead === 0) throw unusable(from, `it ends after ${at} of ${bytes} bytes`)
          await writeFully(target, buffer, bytesRead, at)
          crc = crc32(buffer.subarray(0, bytesRead), crc)
          at += bytesRead
          this.#bytes += bytesRead
          this.#bytesCopied += bytesRead
          this.#report()
        }
        await target.sync()
        return crc
      } finally {
        await target.close()
      }
    } finally {
      await source.close()
    }
  }

  #rows(): [string, string][] {
    const { rows, shards } = this.#source
    const all = new Map(rows)
    for (const [shard, held] of shards.entries()) {
      for (const [key, value] of heldRows(held, shard, partitionsOf(shard, shards.length))) all.set(key, value)
    }
    return [...all].map(([key, value]) => [key, Buffer.from(value).toString('base64')])
  }
}

/** What stands beside backups would be taken for leftovers, and removed: a data directory, above all. */
async function refuseOthers(directory: string): Promise<void> {
  for (const folder of ['', 'tables', 'logs'] as const) {
    const other = (await namesIn(join(directory, folder))).find((name) => !isOfBackups(folder, name))
    if (other === undefined) continue
    const message = `Cannot back up to "${directory}": "${join(folder, other)}" is in it, which is no backup; name a directory that is new or empty`
    throw new SunwiseError('DIRECTORY_UNUSABLE', message)
  }
}

/** A copy within what it is a copy of dies with it, or is taken for a part of it. */
async function refuseInside(directory: string, outer: string, action: string): Promise<void> {
  const whole = await realpath(outer)
  const inner = await presentPart(resolve(directory))
  if (inner !== whole && !inner.startsWith(whole.endsWith(sep) ? whole : whole + sep)) return
  const message = `Cannot ${action} "${directory}": it lies in "${outer}"; name a directory outside of it`
  throw new SunwiseError('DIRECTORY_UNUSABLE', message)
}

/** @throws DIRECTORY_UNUSABLE, DISK_FULL */
function makeTarget(directory: string): void {
  try {
    makeDirectories(directory, directoryMode)
  } catch (cause) {
    const error = diskError('make', directory, cause)
    throw error.code === 'DISK_FULL' ? error : new SunwiseError('DIRECTORY_UNUSABLE', error.message, { cause })
  }
}

/** Where the part of a path that exists leads. */
async function presentPart(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    const parent = dirname(path)
    if (parent === path) throw error
    return join(await presentPart(parent), basename(path))
  }
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if (isMissing(error)) return []
    if (error instanceof Error && 'code' in error && error.code === 'ENOTDIR') {
      throw new SunwiseError('DIRECTORY_UNUSABLE', `Cannot use "${directory}": it is no directory`, { cause: error })
    }
    throw error
  }
}

/** Removes backups that are not in `kept`, and the files that no other names. */
async function prune(directory: string, kept: readonly number[]): Promise<void> {
  const named = new Set(kept.flatMap((number) => readManifest(directory, number).files.map(([path]) => path)))
  for (const number of backupNumbers(directory)) {
    if (kept.includes(number)) continue
    await unlink(join(directory, manifestName(number)))
    await syncDirectory(directory)
    await rm(join(directory, backupLogs(number)), { recursive: true, force: true })
  }
  for (const name of await readdir(join(directory, 'tables'))) {
    if (isOfBackups('tables', name) && !named.has(`tables/${name}`)) await unlink(join(directory, 'tables', name))
  }
}

/** What a look at the files of a backup found: one line for each that is not as it was written. */
export async function verifyBackup(
  directory: string,
  number: number,
  onProgress: (progress: BackupProgress) => void,
): Promise<readonly string[]> {
  const { files } = readManifest(directory, number)
  const bytesTotal = files.reduce((sum, [, bytes]) => sum + bytes, 0)
  const findings: string[] = []
  const buffer = Buffer.allocUnsafe(portionBytes)
  let bytesDone = 0
  for (const [index, [path, bytes, crc]] of files.entries()) {
    const finding = await checkFile(join(directory, path), bytes, crc, buffer)
    if (finding !== undefined) findings.push(`${path}: ${finding}`)
    bytesDone += bytes
    onProgress({ bytes: bytesDone, bytesTotal, files: index + 1 })
  }
  return findings
}

async function checkFile(path: string, bytes: number, crc: number, buffer: Buffer): Promise<string | undefined> {
  const size = await sizeOf(path)
  if (size === undefined) return 'it is missing'
  if (size !== bytes) return `it has ${size} bytes instead of ${bytes}`
  try {
    const file = await open(path, 'r')
    try {
      let found = 0
      for (let at = 0; at < bytes; ) {
        const { bytesRead } = await file.read(buffer, 0, Math.min(buffer.length, bytes - at), at)
        if (bytesRead === 0) return `it ends after ${at} bytes`
        found = crc32(buffer.subarray(0, bytesRead), found)
        at += bytesRead
      }
      return found === crc ? undefined : 'its checksum does not fit'
    } finally {
      await file.close()
    }
  } catch (error) {
    return `it cannot be read: ${String(error)}`
  }
}

/**
 * Makes a data directory of a backup. The directory is new or empty, or an earlier restore of it was cut short; until it is complete no
 * node starts on it. Rejects with BACKUP_CORRUPT, naming the first file that is not as it was written, before anything is changed.
 */
export async function restoreBackup(
  directory: string,
  number: number,
  dataDirectory: string,
  onProgress: (progress: BackupProgress) => void,
): Promise<BackupManifest> {
  const manifest = readManifest(directory, number)
  const findings = await verifyBackup(directory, number, () => {})
  if (findings.length > 0) {
    const more = findings.length > 1 ? `, and ${findings.length - 1} more` : ''
    throw new SunwiseError('BACKUP_CORRUPT', `Cannot restore "${directory}": ${findings[0]}${more}; use another backup`)
  }
  try {
    // Before the lock leaves its name in a directory that is none of ours.
    await refuseData(dataDirectory)
    await refuseInside(dataDirectory, directory, 'restore to')
    makeTarget(dataDirectory)
    const lock = await acquireDirectoryLock(dataDirectory)
    try {
      await fill(directory, manifest, dataDirectory, onProgress)
    } finally {
      await lock.release()
    }
  } catch (error) {
    throw error instanceof SunwiseError ? error : diskError('restore to', dataDirectory, error)
  }
  return manifest
}

/** A restore goes to a directory with nothing in it but locks, or what a restore left that was cut short. */
async function refuseData(directory: string): Promise<void> {
  const names = (await namesIn(directory)).filter((name) => !name.startsWith('lock.'))
  if (names.length === 0 || names.includes(restoringName)) return
  const message = `Cannot restore to "${directory}": there is data in it; name a directory that is new or empty`
  throw new SunwiseError('DIRECTORY_UNUSABLE', message)
}

async function fill(
  directory: string,
  manifest: BackupManifest,
  dataDirectory: string,
  onProgress: (progress: BackupProgress) => void,
): Promise<void> {
  const marker = join(dataDirectory, restoringName)
  await refuseData(dataDirectory)
  await writeWhole(marker, 'This directory is being restored from a backup.\n')
  await syncDirectory(dataDirectory)
  for (const name of ['log', 'catalog', 'catalog.new', tablesDirectory]) {
    await rm(join(dataDirectory, name), { recursive: true, force: true })
  }
  const bytesTotal = manifest.files.reduce((sum, [, bytes]) => sum + bytes, 0)
  let bytesDone = 0
  const folders = new Set<string>()
  for (const [index, [path, bytes]] of manifest.files.entries()) {
    const to = join(dataDirectory, restoredPath(path, manifest.generation))
    for (let folder = dirname(to); folder.length > dataDirectory.length; folder = dirname(folder)) folders.add(folder)
    makeDirectories(dirname(to), directoryMode)
    await copyFile(join(directory, path), to)
    const file = await open(to, 'r+')
    await file.sync().finally(() => file.close())
    bytesDone += bytes
    onProgress({ bytes: bytesDone, bytesTotal, files: index + 1 })
  }
  for (const folder of folders) await syncDirectory(folder)
  const catalog = await HostCatalog.open(join(dataDirectory, 'catalog'))
  try {
    const edits = manifest.rows.map(
      ([key, value]) => ({ op: 'put', key, value: Buffer.from(value, 'base64') }) as const,
    )
    await new Promise<void>((resolve, reject) => {
      catalog.commit(edits, (error) => (error === undefined ? resolve() : reject(error)))
    })
  } finally {
    await catalog.close()
  }
  await syncDirectory(dataDirectory)
  await unlink(marker)
  await syncDirectory(dataDirectory)
}

function restoredPath(path: string, generation: number): string {
  const [, , shard, name] = path.split('/')
  return path.startsWith('tables/')
    ? path.replace('tables', tablesDirectory)
    : `${logDirectoryOf(generation, Number(shard))}/${name}`
}

/** A file that is not whole at its source. A backup without it would show older values of its keys, or none. */
function unusable(path: string, why: string): SunwiseError {
  const message = `Cannot back up "${path}": ${why}; earlier backups stay as they are, restore one or start with --salvage`
  return new SunwiseError('TABLE_CORRUPT', message)
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT'
}

function aborted(directory: string): SunwiseError {
  return new SunwiseError('ABORTED', `The backup to "${directory}" was aborted`, { outcome: 'none' })
}

function foreign(directory: string, nodeId: string): SunwiseError {
  return new SunwiseError(
    'BACKUP_CORRUPT',
    `Cannot back up to "${directory}": the backups in it are of another node (${nodeId}); name another directory`,
  )
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

type Writable = Awaited<ReturnType<typeof open>>

async function writeFully(file: Writable, buffer: Uint8Array, bytes: number, at: number): Promise<void> {
  for (let done = 0; done < bytes; ) {
    const { bytesWritten } = await file.write(buffer, done, bytes - done, at + done)
    done += bytesWritten
  }
}

/** Writes a small file whole, and syncs it. */
async function writeWhole(path: string, content: string | Uint8Array): Promise<void> {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content
  const file = await open(path, 'w', 0o600)
  try {
    await writeFully(file, bytes, bytes.length, 0)
    await file.sync()
  } finally {
    await file.close()
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r')
  await directory.sync().finally(() => directory.close())
}
