/**
 * `backup create|list|verify|restore DIRECTORY`. Each loads the engine only when it runs: the commands of a client do without it. On
 * SIGINT a backup that is being made is given up, and earlier ones stay as they were; a second one ends the process at once.
 */
import { SunwiseError } from '../base/errors.ts'
import { backupsKeptDefault } from '../config.ts'
import type { BackupProgress } from '../host/backup.ts'
import { type CommandContext, integerFrom, parsedOption } from './command-context.ts'
import type { ExitCode } from './failure.ts'
import { Progress, type ProgressState } from './progress.ts'
import { formatBytes, formatCount, formatDuration } from './quantity.ts'
import { note, print } from './terminal.ts'

/** Shows progress while `work` is under way, and says how long it took. */
async function followed<Result>(
  { terminal }: CommandContext,
  label: string,
  work: (onProgress: (progress: BackupProgress) => void) => Promise<Result>,
): Promise<{ readonly result: Result; readonly elapsedMs: number }> {
  const started = performance.now()
  let present: BackupProgress = { bytes: 0, bytesTotal: 0, files: 0 }
  const state = (): ProgressState => ({
    label,
    count: present.files,
    unit: 'files',
    bytes: present.bytes,
    bytesTotal: present.bytesTotal,
    failures: 0,
    elapsedMs: performance.now() - started,
  })
  const progress = new Progress(terminal, state)
  try {
    const result = await work((next) => {
      present = next
    })
    return { result, elapsedMs: performance.now() - started }
  } finally {
    progress.stop()
  }
}

function directoryOf({ settings }: CommandContext): string {
  const { dataDir } = settings
  if (dataDir !== undefined) return dataDir
  throw new SunwiseError('BAD_CONFIG', 'Name the data directory with --data-dir')
}

/** Adds a backup of --data-dir to `directory`. */
export async function backupCreateCommand(context: CommandContext, directory: string): Promise<void> {
  const { terminal, output } = context
  const keep = parsedOption(context, 'keep', '--keep', integerFrom(1, 1_000_000), 'a number of backups from 1')
  const { createBackup } = await import('../host/backup-source.ts')
  const aborting = new AbortController()
  const release = terminal.onSignal(() => (aborting.signal.aborted ? terminal.exit(1) : aborting.abort()))
  const { result, elapsedMs } = await followed(context, 'backup', (onProgress) =>
    createBackup({
      dataDirectory: directoryOf(context),
      directory,
      keep: keep ?? backupsKeptDefault,
      onProgress,
      signal: aborting.signal,
      checks: true,
    }),
  ).finally(release)
  const { number, files, bytes, bytesCopied } = result
  if (output === 'json') {
    await print(
      terminal.stdout,
      `${JSON.stringify({ number, files, bytes, bytesCopied, elapsedMs: Math.round(elapsedMs) })}\n`,
    )
    return
  }
  const what = `${formatCount(files)} files, ${formatBytes(bytes)} (${formatBytes(bytesCopied)} copied)`
  note(terminal, `backup ${number}: ${what} in ${formatDuration(elapsedMs)}`)
}

/** Lists the backups in `directory`, oldest first. */
export async function backupListCommand(context: CommandContext, directory: string): Promise<void> {
  const { terminal, output } = context
  const { backupNumbers, readManifest } = await import('../host/backup-manifest.ts')
  for (const number of backupNumbers(directory)) {
    const { createdMs, nodeId, shards, files } = readManifest(directory, number)
    const created = new Date(createdMs).toISOString()
    const bytes = files.reduce((sum, [, fileBytes]) => sum + fileBytes, 0)
    await print(
      terminal.stdout,
      output === 'json'
        ? `${JSON.stringify({ number, created, nodeId, shards, files: files.length, bytes })}\n`
        : `${number}  ${created}  node ${nodeId}  ${formatCount(files.length)} files  ${formatBytes(bytes)}\n`,
    )
  }
}

/** The backup that --number names, else the latest. @throws BAD_CONFIG */
async function numberOf(context: CommandContext, directory: string): Promise<number> {
  const { backupNumbers } = await import('../host/backup-manifest.ts')
  const numbers = backupNumbers(directory)
  const wanted = parsedOption(context, 'number', '--number', integerFrom(1), 'the number of a backup, as list shows it')
  const number = wanted ?? numbers.at(-1)
  if (number !== undefined && numbers.includes(number)) return number
  const which = wanted === undefined ? 'no backup' : `no backup ${wanted}`
  throw new SunwiseError('BAD_CONFIG', `There is ${which} in "${directory}"`)
}

/** Reads the data directory whole; 1 if anything in it is damaged. */
export async function verifyCommand(context: CommandContext): Promise<ExitCode> {
  const { terminal, output } = context
  const dataDirectory = directoryOf(context)
  const { checkDirectory } = await import('../host/directory-check.ts')
  const aborting = new AbortController()
  const release = terminal.onSignal(() => aborting.abort())
  const { result, elapsedMs } = await followed(context, 'verify', (onProgress) =>
    checkDirectory(dataDirectory, onProgress, aborting.signal),
  ).finally(release)
  const { tables, records, bytes, logs, findings } = result
  const isWell = findings.length === 0
  if (output === 'json') {
    const logRecords = logs?.reduce((sum, log) => sum + log.records, 0)
    await print(terminal.stdout, `${JSON.stringify({ ok: isWell, tables, records, bytes, logRecords, findings })}\n`)
    return isWell ? 0 : 1
  }
  for (const finding of findings) await print(terminal.stdout, `${finding}\n`)
  const inTables = `${formatCount(tables)} tables with ${formatCount(records)} records, ${formatBytes(bytes)}`
  const inLogs =
    logs === undefined
      ? 'its logs are in use'
      : `${formatCount(logs.reduce((sum, log) => sum + log.records, 0))} records in ${formatCount(logs.length)} logs`
  note(terminal, `${isWell ? 'no damage' : 'damaged'}: ${inTables}; ${inLogs}; read in ${formatDuration(elapsedMs)}`)
  return isWell ? 0 : 1
}

/** Reads a backup whole; 1 if anything in it is not as it was written. */
export async function backupVerifyCommand(context: CommandContext, directory: string): Promise<ExitCode> {
  const { terminal, output } = context
  const { verifyBackup } = await import('../host/backup.ts')
  const number = await numberOf(context, directory)
  const { result: findings, elapsedMs } = await followed(context, 'verify', (onProgress) =>
    verifyBackup(directory, number, onProgress),
  )
  const isWell = findings.length === 0
  if (output === 'json') await print(terminal.stdout, `${JSON.stringify({ number, ok: isWell, findings })}\n`)
  else {
    for (const finding of findings) await print(terminal.stdout, `${finding}\n`)
    if (findings.some((finding) => finding.startsWith('tables/'))) {
      note(terminal, 'remove damaged files in tables/, and the next backup copies them anew if the node still has them')
    }
    note(terminal, `backup ${number} is ${isWell ? 'whole' : 'damaged'}; read in ${formatDuration(elapsedMs)}`)
  }
  return isWell ? 0 : 1
}

/** Makes --data-dir of a backup. */
export async function backupRestoreCommand(context: CommandContext, directory: string): Promise<void> {
  const { terminal, output } = context
  const dataDirectory = directoryOf(context)
  const { restoreBackup } = await import('../host/backup.ts')
  const number = await numberOf(context, directory)
  const { result: manifest, elapsedMs } = await followed(context, 'restore', (onProgress) =>
    restoreBackup(directory, number, dataDirectory, onProgress),
  )
  const created = new Date(manifest.createdMs).toISOString()
  const { nodeId, files } = manifest
  if (output === 'json') {
    await print(terminal.stdout, `${JSON.stringify({ number, created, nodeId, files: files.length })}\n`)
  } else {
    const took = formatDuration(elapsedMs)
    note(terminal, `"${dataDirectory}" is backup ${number} of ${created}, node ${nodeId}; restored in ${took}`)
  }
}
