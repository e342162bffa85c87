/**
 * `get`, `put`, `del`, `ls`: one request each (`ls` one per page). Values go to stdout as they are, without a newline; `-o
 * json` wraps them, as `value` where they are text and `value64` where they are not.
 */
import { open } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { SunwiseError } from '../base/errors.ts'
import type { ClientReceipt, ClientValue } from '../client/http-answer.ts'
import { textOfBytes } from '../client/key-bytes.ts'
import { Limits } from '../config.ts'
import { type CommandContext, clientOf, integerFrom, parsedOption, textOption } from './command-context.ts'
import { decodeBase64 } from './import-record.ts'
import { parseDurationMs } from './quantity.ts'
import { note, print } from './terminal.ts'

/** The key of an argument: its UTF-8 bytes, or with `--key64` the bytes that it encodes. */
function keyOf(context: CommandContext, argument: string): string | Uint8Array {
  if (context.options['key64'] !== true) return argument
  const key = decodeBase64(argument)
  if (key === undefined) throw new SunwiseError('BAD_KEY', `${JSON.stringify(argument)} is not base64url`)
  return key
}

/** `bytes` as a JSON member of this name. */
function member(name: string, bytes: Uint8Array, encoding: 'base64' | 'base64url'): Record<string, string> {
  const text = textOfBytes(bytes)
  return text === undefined ? { [`${name}64`]: Buffer.from(bytes).toString(encoding) } : { [name]: text }
}

const keyMember = (key: string | Uint8Array): Record<string, string> => member('key', Buffer.from(key), 'base64url')

const valueMembers = (stored: ClientValue): Record<string, unknown> => ({
  ...member('value', stored.value, 'base64'),
  contentType: stored.contentType,
  expires: stored.expiresAtMs,
})

/** Prints what a key holds. @throws SunwiseError `NOT_FOUND` */
export async function getCommand(context: CommandContext, argument: string): Promise<void> {
  const key = keyOf(context, argument)
  const wantsAll = context.options['siblings'] === true
  const { terminal } = context
  await using client = clientOf(context)
  const entry = await client.get(key, wantsAll ? {} : { siblings: 'winner' })
  const [winner] = entry.values
  if (winner === undefined) {
    const extra = entry.context === undefined ? {} : { context: entry.context }
    throw new SunwiseError('NOT_FOUND', `There is no key ${JSON.stringify(argument)}`, { extra })
  }
  const { etag, context: causal, siblings, acks } = entry
  if (wantsAll) {
    const all = { ...keyMember(key), etag, context: causal, acks, siblings, values: entry.values.map(valueMembers) }
    await print(terminal.stdout, `${JSON.stringify(all, undefined, context.output === 'json' ? 0 : 2)}\n`)
    return
  }
  if (siblings > 1) note(terminal, `${siblings} siblings; this is the winner, --siblings shows all`)
  if (context.output === 'text') await print(terminal.stdout, winner.value)
  else {
    const all = { ...keyMember(key), ...valueMembers(winner), etag, context: causal, acks, siblings }
    await print(terminal.stdout, `${JSON.stringify(all)}\n`)
  }
}

/** Reads all of `stream`. @throws SunwiseError `VALUE_TOO_LARGE` as soon as it is more than any server takes */
async function readValue(stream: Readable): Promise<Uint8Array> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > Limits.valueBytesMax) {
      throw new SunwiseError('VALUE_TOO_LARGE', `The value is larger than ${Limits.valueBytesMax} bytes`)
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

async function valueArgument(context: CommandContext, argument: string | undefined): Promise<Uint8Array> {
  const file = textOption(context, 'file')
  if ((argument === undefined) === (file === undefined)) {
    throw new SunwiseError('BAD_REQUEST', 'put needs a value, - for standard input, or --file, and only one of them')
  }
  if (file !== undefined) {
    await using handle = await open(file)
    return await readValue(handle.createReadStream({ autoClose: false }))
  }
  return argument === '-' ? await readValue(context.terminal.stdin) : Buffer.from(argument!)
}

async function printReceipt(context: CommandContext, key: string | Uint8Array, receipt: ClientReceipt): Promise<void> {
  if (context.output === 'text') {
    if (receipt.siblings > 1) note(context.terminal, `the key now has ${receipt.siblings} siblings`)
    return
  }
  await print(context.terminal.stdout, `${JSON.stringify({ ...keyMember(key), ...receipt })}\n`)
}

function preconditions(context: CommandContext): { context?: string; ifMatch?: string[] | '*'; ifNoneMatch?: '*' } {
  const causal = textOption(context, 'context')
  const ifMatch = textOption(context, 'ifMatch')
  return {
    ...(causal === undefined ? {} : { context: causal }),
    ...(ifMatch === undefined ? {} : { ifMatch: ifMatch === '*' ? '*' : [ifMatch.replace(/^"(.*)"$/, '$1')] }),
    ...(context.options['ifNoneMatch'] === true ? { ifNoneMatch: '*' as const } : {}),
  }
}

/** Writes a value. Silent on success unless JSON is asked for. */
export async function putCommand(context: CommandContext, argument: string, value?: string): Promise<void> {
  const key = keyOf(context, argument)
  const ttlMs = parsedOption(context, 'ttl', '--ttl', parseDurationMs, 'a duration such as 30s or 7d')
  const contentType = textOption(context, 'contentType')
  const bytes = await valueArgument(context, value)
  await using client = clientOf(context)
  const receipt = await client.put(key, bytes, {
    ...preconditions(context),
    ...(ttlMs === undefined ? {} : { ttlMs }),
    ...(contentType === undefined ? {} : { contentType }),
  })
  await printReceipt(context, key, receipt)
}

/** Deletes a key; no error if there is none. */
export async function deleteCommand(context: CommandContext, argument: string): Promise<void> {
  const key = keyOf(context, argument)
  await using client = clientOf(context)
  await printReceipt(context, key, await client.delete(key, preconditions(context)))
}

/** `text` for a line of a listing: itself unless it would break the line or drive the terminal. */
function lineText(bytes: Uint8Array): string {
  const text = textOfBytes(bytes)
  if (text === undefined) return `base64url:${Buffer.from(bytes).toString('base64url')}`
  return /\p{Cc}/u.test(text) ? JSON.stringify(text) : text
}

/** Prints keys as they come, one a line; with `--values` their winning values after a tab. */
export async function listCommand(context: CommandContext, prefix?: string): Promise<void> {
  const limit = parsedOption(context, 'limit', '--limit', integerFrom(1), 'a number from 1')
  const values = context.options['values'] === true
  await using client = clientOf(context)
  const listed = client.list({
    values,
    ...(prefix === undefined || prefix === '' ? {} : { prefix: keyOf(context, prefix) }),
    ...(limit === undefined ? {} : { limit }),
  })
  for await (const { key, entry } of listed) {
    const [winner] = entry?.values ?? []
    let line = lineText(key)
    if (context.output === 'json') {
      const { etag, siblings } = entry ?? {}
      line = JSON.stringify({ ...keyMember(key), ...(winner && valueMembers(winner)), etag, siblings })
    } else if (winner !== undefined) line += `\t${lineText(winner.value)}`
    await print(context.terminal.stdout, `${line}\n`)
  }
}
