/**
 * `export FILE|-`: every key of a bucket as a line of NDJSON that `import` reads back. A file appears under its name only when
 * it is complete and on stable storage; until then it is `FILE.part`. The export is no snapshot: each page is consistent in
 * itself, and writes made meanwhile may or may not be in it.
 */
import { open, rename, unlink } from 'node:fs/promises'
import { dirname } from 'node:path'
import { type CommandContext, clientOf, textOption } from './command-context.ts'
import { exportLine } from './import-record.ts'
import { Progress, type ProgressState } from './progress.ts'
import { formatBytes, formatCount, formatDuration } from './quantity.ts'
import { note, print } from './terminal.ts'

/** Lines gathered for one write. */
const WRITE_BYTES = 256 * 1024

type Sink = { write(text: string): Promise<void>; complete(): Promise<void>; abandon(): Promise<void> }

async function openSink(context: CommandContext, file: string): Promise<Sink> {
  if (file === '-') {
    const nothing = async (): Promise<void> => {}
    return { write: (text) => print(context.terminal.stdout, text), complete: nothing, abandon: nothing }
  }
  const part = `${file}.part`
  const handle = await open(part, 'w')
  return {
    write: async (text) => {
      await handle.writeFile(text)
    },
    complete: async () => {
      await handle.sync()
      await handle.close()
      await rename(part, file)
      const directory = await open(dirname(file))
      await directory.sync().finally(() => directory.close())
    },
    abandon: async () => {
      await handle.close()
      await unlink(part)
    },
  }
}

/** Writes all keys with the prefix (or all) and says on stderr how many there were. */
export async function exportCommand(context: CommandContext, file: string): Promise<void> {
  const { terminal, output } = context
  const prefix = textOption(context, 'prefix')
  const started = performance.now()
  let records = 0
  let bytes = 0
  let withSiblings = 0
  await using client = clientOf(context)
  const sink = await openSink(context, file)
  const progress = new Progress(
    terminal,
    (): ProgressState => ({
      label: 'export',
      count: records,
      unit: 'records',
      bytes,
      bytesTotal: undefined,
      failures: 0,
      elapsedMs: performance.now() - started,
    }),
  )
  try {
    let lines = ''
    for await (const { key, entry } of client.list({ values: true, ...(prefix === undefined ? {} : { prefix }) })) {
      // Deleted or expired between the listing of its key and the reading of its value.
      if (entry === undefined || entry.values.length === 0) continue
      if (entry.values.length > 1) withSiblings++
      lines += exportLine(key, entry)
      records++
      if (lines.length < WRITE_BYTES) continue
      bytes += lines.length
      await sink.write(lines)
      lines = ''
    }
    bytes += lines.length
    if (lines !== '') await sink.write(lines)
    await sink.complete()
  } catch (error) {
    await sink.abandon().catch(() => undefined)
    throw error
  } finally {
    progress.stop()
  }
  const elapsedMs = performance.now() - started
  if (withSiblings > 0) {
    note(terminal, `${formatCount(withSiblings)} keys have siblings; an import brings back the first of each only`)
  }
  if (output === 'json') {
    const summary = JSON.stringify({ records, bytes, withSiblings, elapsedMs: Math.round(elapsedMs) })
    if (file === '-') note(terminal, summary)
    else await print(terminal.stdout, `${summary}\n`)
  } else {
    note(terminal, `${formatCount(records)} records exported; ${formatBytes(bytes)} in ${formatDuration(elapsedMs)}`)
  }
}
