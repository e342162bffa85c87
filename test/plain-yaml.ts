/**
 * Reads the plain YAML of deploy/, and refuses all else: block mappings and sequences by two spaces of indent, scalars of one line (bare, or in
 * quotes without escapes), comments on lines of their own, documents parted by `---`, the empty mapping `{}`, and anchors of mappings with
 * merges (`name: &anchor`, `<<: *anchor`). All scalars are text, as typed; what has no value is undefined. A key that stands twice is an error:
 * other readers would silently take one of them.
 */

export type Yaml = undefined | string | readonly Yaml[] | YamlMapping
export type YamlMapping = { readonly [key: string]: Yaml }

type Line = { readonly indent: number; readonly text: string; readonly number: number }

export function isMapping(value: Yaml): value is YamlMapping {
  return typeof value === 'object' && !Array.isArray(value)
}

/** @throws an error with the line, where the text is not what is described above */
export function readPlainYaml(text: string): Yaml[] {
  const documents: Line[][] = [[]]
  for (const [index, raw] of text.split('\n').entries()) {
    const number = index + 1
    if (raw === '---') documents.push([])
    else if (raw.trim() !== '' && !raw.trimStart().startsWith('#')) {
      if (/\t| $/.test(raw)) throw new Error(`Line ${number}: tabs, or spaces at the end`)
      const line = raw.trimStart()
      documents.at(-1)!.push({ indent: raw.length - line.length, text: line, number })
    }
  }
  return documents.filter((lines) => lines.length > 0).map((lines) => new DocumentReader(lines).read())
}

class DocumentReader {
  readonly #lines: Line[]
  readonly #anchors = new Map<string, YamlMapping>()
  #at = 0

  constructor(lines: Line[]) {
    this.#lines = lines
  }

  read(): Yaml {
    const value = this.#block(0)
    const rest = this.#lines[this.#at]
    if (rest !== undefined) throw new Error(`Line ${rest.number}: is not indented as those above it`)
    return value
  }

  #block(indent: number): Yaml {
    return this.#lines[this.#at]!.text.startsWith('- ') ? this.#sequence(indent) : this.#mapping(indent)
  }

  #sequence(indent: number): Yaml[] {
    const values: Yaml[] = []
    for (let line = this.#lines[this.#at]; line?.indent === indent; line = this.#lines[this.#at]) {
      if (!line.text.startsWith('- ')) throw new Error(`Line ${line.number}: is no element of the list above it`)
      const text = line.text.slice(2)
      if (entryOf(text) === undefined) {
        values.push(scalarOf(text, line.number))
        this.#at++
      } else {
        // A mapping that begins behind the dash, and goes on two further to the right.
        this.#lines[this.#at] = { ...line, indent: indent + 2, text }
        values.push(this.#mapping(indent + 2))
      }
    }
    return values
  }

  #mapping(indent: number): YamlMapping {
    const own = new Map<string, Yaml>()
    let merged: YamlMapping = {}
    for (let line = this.#lines[this.#at]; line?.indent === indent; line = this.#lines[this.#at]) {
      const entry = entryOf(line.text)
      if (entry === undefined) throw new Error(`Line ${line.number}: is no "key: value"`)
      const [key, text] = entry
      if (own.has(key)) throw new Error(`Line ${line.number}: ${key} stands twice`)
      this.#at++
      if (key === '<<') {
        const base = this.#anchors.get(text.slice(1))
        if (!text.startsWith('*') || base === undefined) throw new Error(`Line ${line.number}: no such anchor`)
        merged = { ...merged, ...base }
      } else own.set(key, this.#value(text, line))
    }
    return { ...merged, ...Object.fromEntries(own) }
  }

  #value(text: string, { indent, number }: Line): Yaml {
    const anchor = /^&([a-z]+)$/.exec(text)?.[1]
    if (text === '{}') return {}
    if (text !== '' && anchor === undefined) return scalarOf(text, number)
    const next = this.#lines[this.#at]
    if (next === undefined || next.indent <= indent) return undefined
    if (next.indent !== indent + 2) throw new Error(`Line ${next.number}: is not indented by two spaces`)
    const value = this.#block(indent + 2)
    if (anchor !== undefined && isMapping(value)) this.#anchors.set(anchor, value)
    return value
  }
}

function entryOf(text: string): readonly [string, string] | undefined {
  const match = /^([A-Za-z][\w./-]*|<<):(?: (.+))?$/.exec(text)
  return match === null ? undefined : [match[1]!, match[2] ?? '']
}

function scalarOf(text: string, number: number): string {
  const quoted = /^'([^']*)'$/.exec(text) ?? /^"([^"\\]*)"$/.exec(text)
  if (quoted !== null) return quoted[1]!
  // What begins so, or holds these, means something else to other readers.
  if (/^[\s&*!|>'"%@`{}[\],?:#-]|: | #|:$/.test(text) && !/^-[a-z]$/.test(text)) {
    throw new Error(`Line ${number}: ${text} needs quotes, or is not plain YAML`)
  }
  return text
}
