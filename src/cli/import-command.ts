/**
 * `import FILE`: NDJSON or a JSON array, streamed with bounded memory through batches. Records that cannot be read or stored are
 * counted, the first few are shown, and the exit code tells; a server that fails as a whole ends the import with the number of
 * records to skip next time.
 */
import { open } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import type { SunwiseError } from '../base/errors.ts'
import { type CommandContext, clientOf, integerFrom, parsedOption, textOption } from './command-context.ts'
import { type ExitCode, exitCodeOf, reportFailure } from './failure.ts'
import { parseImportRecord } from './import-record.ts'
import { ImportSplitter, type Piece } from './import-splitter.ts'
import { Importer } from './importer.ts'
import { Progress, type ProgressState } from './progress.ts'
import { formatBytes, formatCount, formatDuration } from './quantity.ts'
import { note, print } from './terminal.ts'

const CHUNK_BYTES = 256 * 1024
/** Problems shown one by one; the rest are only counted. */
const PROBLEMS_SHOWN = 10
/** How long records that the server refuses for the moment are sent again. */
const RETRY_MS = 60_000

type Input = { readonly stream: Readable; readonly bytesTotal: number | undefined; close(): Promise<void> }

async function openInput(context: CommandContext, file: string): Promise<Input> {
  if (file === '-') return { stream: context.terminal.stdin, bytesTotal: undefined, close: async () => {} }
  const handle = await open(file)
  const { size } = await handle.stat()
  const stream = handle.createReadStream({ highWaterMark: CHUNK_BYTES, autoClose: false })
  return { stream, bytesTotal: size, close: () => handle.close() }
}

/** Runs one import and prints its summary: on stderr for people, on stdout as JSON. */
export async function importCommand(context: CommandContext, file: string): Promise<ExitCode> {
  const { terminal, output } = context
  const integer = 'a number'
  const concurrency =
    parsedOption(context, 'concurrency', '--concurrency', integerFrom(1, 64), 'a number from 1 to 64') ?? 8
  const skip = parsedOption(context, 'skip', '--skip', integerFrom(0), integer) ?? 0
  const keyField = textOption(context, 'keyField')

  const started = performance.now()
  const seen = { read: 0, bytes: 0, invalid: 0, expired: 0 }
  let shown = 0
  const interruption = new AbortController()
  await using client = clientOf(context, concurrency)
  const input = await openInput(context, file)
  const importer = new Importer(client, {
    concurrency,
    retryMs: RETRY_MS,
    onResult: (ordinal, _, error) => {
      if (error !== undefined) showProblem(`record ${formatCount(ordinal)}: ${error.message} (${error.code})`)
    },
  })
  const progress = new Progress(
    terminal,
    (): ProgressState => ({
      label: 'import',
      count: importer.counts.stored,
      unit: 'records',
      bytes: seen.bytes,
      bytesTotal: input.bytesTotal,
      failures: importer.counts.failed + importer.counts.unknown + seen.invalid,
      elapsedMs: performance.now() - started,
    }),
  )
  const showProblem = (text: string): void => {
    shown++
    if (shown <= PROBLEMS_SHOWN) progress.note(text)
    else if (shown === PROBLEMS_SHOWN + 1) progress.note('further problems are only counted')
  }
  const take = async (piece: Piece): Promise<void> => {
    seen.read++
    if (piece.ordinal <= skip) return importer.skip(piece.ordinal)
    if (piece.bytes === undefined) {
      seen.invalid++
      showProblem(`${piece.place}: ${piece.problem}`)
      return importer.skip(piece.ordinal)
    }
    const parsed = parseImportRecord(piece.bytes, keyField, Date.now())
    if (parsed.kind === 'record') return importer.add(piece.ordinal, parsed.record)
    if (parsed.kind === 'expired') seen.expired++
    else {
      seen.invalid++
      showProblem(`${piece.place}: ${parsed.problem}`)
    }
    return importer.skip(piece.ordinal)
  }
  const release = terminal.onSignal((signal) => {
    if (interruption.signal.aborted) terminal.exit(1)
    else progress.note(`${signal}: finishing what is under way; once more ends at once`)
    interruption.abort()
    input.stream.destroy()
  })

  let failure: unknown
  try {
    const splitter = new ImportSplitter()
    try {
      for await (const chunk of input.stream as AsyncIterable<Buffer>) {
        for (const piece of splitter.push(chunk)) await take(piece)
        seen.bytes += chunk.length
        if (interruption.signal.aborted || splitter.isBroken) break
      }
    } catch (error) {
      if (!interruption.signal.aborted) throw error
    }
    if (!interruption.signal.aborted) for (const piece of splitter.end()) await take(piece)
    await importer.finish()
  } catch (error) {
    failure = error
    await importer.finish().catch((_: SunwiseError) => undefined)
  } finally {
    release()
    progress.stop()
    await input.close()
  }

  const { stored, failed, unknown, bytes } = importer.counts
  const elapsedMs = performance.now() - started
  const { resumeAfter } = importer
  const isCutShort = failure !== undefined || interruption.signal.aborted
  const failures = failed + seen.invalid
  const summary = { read: seen.read, stored, failed: failures, unknown, expired: seen.expired, bytes, resumeAfter }
  if (output === 'json') {
    await print(terminal.stdout, `${JSON.stringify({ ...summary, elapsedMs: Math.round(elapsedMs) })}\n`)
  } else {
    const parts = [`${formatCount(stored)} records stored`]
    if (failures > 0) parts.push(`${formatCount(failures)} failed`)
    if (unknown > 0) parts.push(`${formatCount(unknown)} with unknown outcome`)
    if (seen.expired > 0) parts.push(`${formatCount(seen.expired)} expired before`)
    const speed = `${formatCount(stored / (elapsedMs / 1000))}/s`
    note(terminal, `${parts.join(', ')}; ${formatBytes(bytes)} in ${formatDuration(elapsedMs)} (${speed})`)
  }
  if (isCutShort) note(terminal, `not complete; go on with --skip ${resumeAfter}`)
  if (failure !== undefined) {
    reportFailure(terminal, failure, output)
    return exitCodeOf(failure)
  }
  return unknown > 0 ? 6 : failures > 0 || isCutShort ? 1 : 0
}
