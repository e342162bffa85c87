/** What every command gets: the process around it, its settings, and its own options as typed. */
import { SunwiseError } from '../base/errors.ts'
import { HttpClient } from '../client/http-client.ts'
import type { OutputFormat, ResolvedSettings } from './settings.ts'
import type { Terminal } from './terminal.ts'

export type CommandContext = {
  readonly terminal: Terminal
  readonly settings: ResolvedSettings['values']
  readonly output: OutputFormat
  /** Options of this command alone, by their name in camel case. */
  readonly options: Readonly<Record<string, unknown>>
}

/** A client of the server that the settings name. */
export function clientOf(context: CommandContext, connectionsMax = 8): HttpClient {
  const { endpoint, bucket, timeout } = context.settings
  return new HttpClient({ endpoint, bucket, timeoutMs: timeout, connectionsMax })
}

/** The option `name` as text; undefined if it was not given. */
export function textOption(context: CommandContext, name: string): string | undefined {
  const value = context.options[name]
  return typeof value === 'string' ? value : undefined
}

/** The option `name` as a checked value. @throws SunwiseError `BAD_CONFIG` */
export function parsedOption<Value>(
  context: CommandContext,
  name: string,
  flag: string,
  parse: (text: string) => Value | undefined,
  expected: string,
): Value | undefined {
  const text = textOption(context, name)
  if (text === undefined) return undefined
  const value = parse(text)
  if (value !== undefined) return value
  throw new SunwiseError('BAD_CONFIG', `${flag} is ${JSON.stringify(text)}; expected ${expected}`)
}

/** A whole number of at least `min`, for `parsedOption`. */
export const integerFrom =
  (min: number, max: number = Number.MAX_SAFE_INTEGER) =>
  (text: string): number | undefined => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    return value >= min && value <= max ? value : undefined
  }
