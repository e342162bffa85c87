/**
 * What a backup consists of: one file of text that names every other, with length and checksum. A backup counts once its manifest has
 * its name; whatever no manifest names is left over from an attempt that was cut short.
 *
 *   <directory>/
 *     manifest-000001.json      format 1, below
 *     logs/000001/<shard>/NNNNN.log
 *     tables/<id>.sst           shared by all manifests that name it
 *
 *   line 1   JSON: { format, createdMs, nodeId, generation, shards, segmentBytes,
 *                    rows: [[key, value in base64] ...],      of the catalog: what a restored node starts with
 *                    files: [[path, bytes, crc32] ...] }      logs and tables, relative to the backup
 *   line 2   crc32 of line 1 without its end, eight hexadecimal digits
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { SunwiseError } from '../base/errors.ts'

const manifestFormatVersion = 1
/** File in a data directory that is being restored. */
export const restoringName = 'RESTORING'
const namePattern = /^manifest-(\d{6,9})\.json$/
const pathPattern = /^(?:tables\/[0-9a-f]{16}\.sst|logs\/\d{6,9}\/\d{1,5}\/\d{5,9}\.log)$/

/** A file of a backup: its path in it, its length, the CRC-32 of all of it. */
export type BackupFile = readonly [path: string, bytes: number, crc: number]

export type BackupManifest = {
  readonly createdMs: number
  readonly nodeId: string
  readonly generation: number
  readonly shards: number
  readonly segmentBytes: number
  readonly rows: readonly (readonly [string, string])[]
  readonly files: readonly BackupFile[]
}

/** File name of the manifest of backup `number`. */
export function manifestName(number: number): string {
  return `manifest-${String(number).padStart(6, '0')}.json`
}

/** What a file is called until it is whole. */
export const partSuffix = '.part'
const tablePattern = /^[0-9a-f]{16}\.sst$/
const logsPattern = /^\d{6,9}$/

/** Whether a path of a backup directory is of backups, whole or not: `folder` is the directory itself (''), tables or logs. */
export function isOfBackups(folder: '' | 'tables' | 'logs', name: string): boolean {
  const whole = name.endsWith(partSuffix) ? name.slice(0, -partSuffix.length) : name
  if (folder === 'tables') return tablePattern.test(whole)
  if (folder === 'logs') return logsPattern.test(name)
  return name === 'tables' || name === 'logs' || namePattern.test(whole)
}

/** Whether a file of this name is a manifest. */
export function isManifestName(name: string): boolean {
  return namePattern.test(name)
}

/** Directory of its logs. */
export function backupLogs(number: number): string {
  return `logs/${String(number).padStart(6, '0')}`
}

/** Numbers of the backups in a directory, oldest first; none where there is no such directory. */
export function backupNumbers(directory: string): number[] {
  let names: string[]
  try {
    names = readdirSync(directory)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code === 'ENOENT') return []
    if (code === 'ENOTDIR') {
      throw new SunwiseError('DIRECTORY_UNUSABLE', `"${directory}" is no directory; name one for backups`, {
        cause: error,
      })
    }
    throw new SunwiseError('DISK_FAILED', `Cannot read the backup "${directory}": ${String(error)}`, { cause: error })
  }
  const numbers = names.flatMap((name) => {
    const found = namePattern.exec(name)
    return found === null ? [] : [Number(found[1])]
  })
  return numbers.sort((a, b) => a - b)
}

export function encodeManifest(manifest: BackupManifest): string {
  const line = JSON.stringify({ format: manifestFormatVersion, ...manifest })
  return `${line}\n${checksumOf(line)}\n`
}

/** @throws BACKUP_CORRUPT where it is damaged or of another version */
export function decodeManifest(text: string, name: string): BackupManifest {
  const [line, checksum] = text.split('\n')
  if (line === undefined || checksum === undefined || checksumOf(line) !== checksum) {
    throw corrupt(name, 'its checksum does not fit')
  }
  let parsed: BackupManifest & { readonly format: number }
  try {
    parsed = JSON.parse(line) as BackupManifest & { readonly format: number }
  } catch (cause) {
    throw new SunwiseError('BACKUP_CORRUPT', `Cannot use the backup: "${name}" is not JSON`, { cause })
  }
  const { format, ...manifest } = parsed
  if (format !== manifestFormatVersion) {
    throw corrupt(name, `it has format ${format}, and this program reads ${manifestFormatVersion}`)
  }
  // Paths are used to read and to write files: none may lead out of the backup.
  for (const [path] of manifest.files) if (!pathPattern.test(path)) throw corrupt(name, `it names a file "${path}"`)
  return manifest
}

/** The manifest of backup `number`. @throws BACKUP_CORRUPT, DISK_FAILED */
export function readManifest(directory: string, number: number): BackupManifest {
  const name = manifestName(number)
  let text: string
  try {
    text = readFileSync(join(directory, name), 'utf8')
  } catch (cause) {
    throw new SunwiseError('DISK_FAILED', `Cannot read "${join(directory, name)}": ${String(cause)}`, { cause })
  }
  return decodeManifest(text, name)
}

function checksumOf(line: string): string {
  return crc32(line).toString(16).padStart(8, '0')
}

function corrupt(name: string, why: string): SunwiseError {
  return new SunwiseError(
    'BACKUP_CORRUPT',
    `Cannot use the backup: "${name}" is damaged: ${why}; move it away to go on without this backup`,
  )
}
