/** `version`: what runs here. */
import { version } from '../host/version.ts'
import type { CommandContext } from './command-context.ts'
import { print } from './terminal.ts'

/** Prints the versions of the program and of Node, and the platform. */
export async function versionCommand(context: CommandContext): Promise<void> {
  const { version: node, platform, arch } = process
  const text =
    context.output === 'json'
      ? JSON.stringify({ version, node, platform, arch })
      : `sunwise ${version} (node ${node}, ${platform} ${arch})`
  await print(context.terminal.stdout, `${text}\n`)
}
