/**
 * The command tree: names, arguments and help, and the one way from arguments to an exit code. What commands do stands in their
 * own files; settings come from the table in settings.ts.
 */
import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { SunwiseError } from '../base/errors.ts'
import { backupsKeptDefault } from '../config.ts'
import { version } from '../host/version.ts'
import {
  backupCreateCommand,
  backupListCommand,
  backupRestoreCommand,
  backupVerifyCommand,
  verifyCommand,
} from './backup-commands.ts'
import { benchCommand, benchHelp } from './bench-command.ts'
import {
  clusterExplainCommand,
  clusterLeaveCommand,
  clusterMembersCommand,
  clusterRemoveCommand,
  clusterRingCommand,
  clusterStatusCommand,
} from './cluster-commands.ts'
import type { CommandContext } from './command-context.ts'
import { deleteCommand, getCommand, listCommand, putCommand } from './data-commands.ts'
import { devClusterCommand, devNodesMax, devNodesOf } from './dev-cluster.ts'
import { type DeepCheck, doctorCommand } from './doctor-command.ts'
import { exportCommand } from './export-command.ts'
import { type ExitCode, exitCodeOf, reportFailure } from './failure.ts'
import { importCommand } from './import-command.ts'
import { CONFIG_VARIABLE, type OutputFormat, resolveSettings, type SettingName, SettingTable } from './settings.ts'
import { devCommand, type StartServer, startCommand } from './start-command.ts'
import type { Terminal } from './terminal.ts'
import { versionCommand } from './version-command.ts'

/** What the command line needs of the layers below it. */
export type Machinery = {
  readonly startServer: StartServer
  /** Looks into log and catalog for `doctor`; left out, it does not. */
  readonly deepCheck?: DeepCheck
}

const serverSettings = [
  'dataDir',
  'http',
  'peer',
  'advertise',
  'join',
  'zone',
  'replaces',
  'shards',
  'memory',
  'durability',
  'syncInterval',
  'valueMax',
  'compression',
  'scrubRate',
  'insecure',
  'allowedHosts',
  'salvage',
  'drainTimeout',
] as const satisfies readonly SettingName[]
const clientSettings = ['endpoint', 'bucket', 'timeout'] as const satisfies readonly SettingName[]

/** Where commands look for data that `dev` keeps. */
const devDirectory: Partial<Record<SettingName, string>> = { dataDir: './data/dev' }

type Action = (context: CommandContext, ...operands: string[]) => Promise<ExitCode>

/** A command that either fails or is a success. */
const orThrow =
  (command: (context: CommandContext, ...operands: string[]) => Promise<void>): Action =>
  async (context, ...operands) => {
    await command(context, ...operands)
    return 0
  }

/** The name under which commander gives the value of a flag: `--data-dir` as `dataDir`. */
export function optionNameOf(flag: string): string {
  return flag.replace(/^--/, '').replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())
}

function addSettings(command: Command, names: readonly SettingName[]): void {
  for (const name of [...names, 'output'] as const) {
    const { flag, short, argument, env, help, fallback } = SettingTable[name]
    const flags = `${short === undefined ? '' : `${short}, `}${flag}${argument === undefined ? '' : ` ${argument}`}`
    const notes = [fallback === undefined || fallback === '' ? '' : `default: ${fallback}`, `env: ${env}`].filter(
      (text) => text !== '',
    )
    command.option(flags, `${help} (${notes.join(', ')})`)
  }
  command.option('--config <file>', `JSON file with settings by their names in camel case (env: ${CONFIG_VARIABLE})`)
}

const CONFIG_BYTES_MAX = 1024 * 1024

function readConfig(path: string | undefined): { path: string; content: unknown } | undefined {
  if (path === undefined || path === '') return undefined
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    throw new SunwiseError('BAD_CONFIG', `Cannot read the configuration file ${path}: ${(cause as Error).message}`, {
      cause,
    })
  }
  if (text.length > CONFIG_BYTES_MAX)
    throw new SunwiseError('BAD_CONFIG', `${path} is larger than a configuration can be`)
  try {
    return { path, content: JSON.parse(text) }
  } catch (cause) {
    throw new SunwiseError('BAD_CONFIG', `${path} is not JSON: ${(cause as Error).message}`, { cause })
  }
}

/** The format in which to say that the settings themselves are wrong: as well as it can be known by then. */
function outputOf(options: Readonly<Record<string, unknown>>, terminal: Terminal): OutputFormat {
  const wanted = options['output'] ?? terminal.environment[SettingTable.output.env]
  return wanted === 'json' ? 'json' : 'text'
}

function contextOf(
  terminal: Terminal,
  options: Readonly<Record<string, unknown>>,
  fallbacks: Partial<Record<SettingName, string>>,
): CommandContext {
  const configPath = options['config'] ?? terminal.environment[CONFIG_VARIABLE]
  const file = readConfig(typeof configPath === 'string' ? configPath : undefined)
  const { values } = resolveSettings({ flags: options, environment: terminal.environment, file, fallbacks })
  return { terminal, settings: values, output: values.output, options }
}

/** Builds the tree; `done` gets the exit code of the command that ran. */
function buildProgram(terminal: Terminal, machinery: Machinery, done: (code: ExitCode) => void): Command {
  const program = new Command('sunwise')
  program
    .description('A Dynamo-style key-value store: server, client and tools')
    .version(version, '-V, --version')
    .showHelpAfterError('(--help lists what there is)')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.stdout.write(text),
      writeErr: (text) => terminal.stderr.write(text),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })

  const add = (
    name: string,
    description: string,
    settings: readonly SettingName[],
    fallbacks: Partial<Record<SettingName, string>>,
    action: Action,
    parent: Command = program,
  ): Command => {
    const command = parent.command(name).description(description)
    // Operands first, then the options and the command itself, as commander passes them.
    command.action(async (...passed: unknown[]) => {
      const operands = passed.slice(0, -2) as string[]
      const options = passed.at(-2) as Readonly<Record<string, unknown>>
      let output = outputOf(options, terminal)
      try {
        const context = contextOf(terminal, options, fallbacks)
        output = context.output
        done(await action(context, ...operands))
      } catch (error) {
        reportFailure(terminal, error, output)
        done(exitCodeOf(error))
      }
    })
    addSettings(command, settings)
    return command
  }
  const addKey64 = (command: Command): Command =>
    command.option('--key64', 'keys are given in base64url: any bytes, not only text')

  add('start', 'run one server in the foreground', serverSettings, {}, (context) =>
    startCommand(context, machinery.startServer),
  )
  add('dev', 'run a server for trying things out', serverSettings, devDirectory, (context) => {
    const nodes = devNodesOf(context)
    return nodes === 1 ? devCommand(context, machinery.startServer) : devClusterCommand(context, nodes)
  }).option('--nodes <count>', `a cluster of so many processes, 1 to ${devNodesMax} (default: 1)`)
  addKey64(add('get <key>', 'print the value of a key', clientSettings, {}, orThrow(getCommand))).option(
    '--siblings',
    'show all values that the key has, as JSON',
  )
  addKey64(add('put <key> [value]', 'write a value; - reads standard input', clientSettings, {}, orThrow(putCommand)))
    .option('-f, --file <file>', 'write the content of a file')
    .option('--ttl <duration>', 'let the value expire, such as after 30s or 7d')
    .option('--content-type <type>', 'kept with the value and given back with it')
    .option('--context <context>', 'replace exactly what the answer with this context showed')
    .option('--if-match <etag>', 'write only if the key has this etag')
    .option('--if-none-match', 'write only if the key has no value')
  addKey64(add('del <key>', 'delete a key', clientSettings, {}, orThrow(deleteCommand)))
    .option('--context <context>', 'delete exactly what the answer with this context showed')
    .option('--if-match <etag>', 'delete only if the key has this etag')
  addKey64(add('ls [prefix]', 'list keys', clientSettings, {}, orThrow(listCommand)))
    .option('--limit <count>', 'stop after so many keys')
    .option('--values', 'show values, too')
  add(
    'import <file>',
    'write records from NDJSON or a JSON array; - reads standard input',
    clientSettings,
    {},
    importCommand,
  )
    .option('--key-field <name>', 'store each record whole, under the key in this field')
    .option('--skip <count>', 'leave out so many records at the beginning')
    .option('--concurrency <count>', 'batches under way at a time (default: 8)')
  add(
    'export <file>',
    'write all records as NDJSON; - writes standard output',
    clientSettings,
    {},
    orThrow(exportCommand),
  ).option('--prefix <prefix>', 'only keys that begin so')
  add('doctor', 'check what commonly goes wrong around a server', serverSettings, devDirectory, (context) =>
    doctorCommand(context, machinery.deepCheck),
  )
  add(
    'bench [names...]',
    "run db_bench's and YCSB's work against a store in this process",
    ['dataDir', 'shards', 'memory', 'durability', 'valueMax'],
    { durability: 'os' },
    orThrow((context, ...names) => benchCommand(context, names.flat())),
  )
    .option('--num <count>', 'records, and operations of most benchmarks (default: 1000000)')
    .option('--key-size <bytes>', 'bytes of a key (default: 16)')
    .option('--value-size <size>', 'bytes of a value (default: 100)')
    .option('--concurrency <count>', 'operations under way at a time (default: 64)')
    .option('--seed <number>', 'draws the same records again (default: 1)')
    .option('--histogram', 'show how long operations took, by powers of two')
    .option('--existing', 'read and overwrite what an earlier run left in --data-dir')
    .addHelpText('after', benchHelp)
  const backup = program.command('backup').description('back up a data directory, also while a node runs on it')
  backup.showHelpAfterError('(--help lists what there is)')
  const create = orThrow(backupCreateCommand)
  add('create <directory>', 'add a backup to those in a directory', ['dataDir'], devDirectory, create, backup).option(
    '--keep <count>',
    `backups to keep; older ones are removed (default: ${backupsKeptDefault})`,
  )
  add('list <directory>', 'list the backups in a directory', [], {}, orThrow(backupListCommand), backup)
  const number = ['--number <number>', 'which backup, as list shows it (default: the latest)'] as const
  add('verify <directory>', 'read a backup whole', [], {}, backupVerifyCommand, backup).option(...number)
  const restore = orThrow(backupRestoreCommand)
  add('restore <directory>', 'make a data directory of a backup', ['dataDir'], {}, restore, backup).option(...number)
  add('verify', 'read all tables and logs of a data directory', ['dataDir'], devDirectory, verifyCommand)
  const cluster = program.command('cluster').description('look at the cluster of a node, and change its members')
  cluster.showHelpAfterError('(--help lists what there is)')
  const addCluster = (name: string, description: string, run: Parameters<typeof orThrow>[0]): Command =>
    add(name, description, clientSettings, {}, orThrow(run), cluster)
  addCluster('status', 'members, and whether data moves', clusterStatusCommand)
  addCluster('members', 'members, and who of them answers', clusterMembersCommand)
  addCluster('ring', 'the replicas of every partition', clusterRingCommand)
  addCluster('explain <key>', 'where a key lies, and whom requests for it need', clusterExplainCommand)
  addCluster('leave <node>', 'let a node hand over what it has, and leave', clusterLeaveCommand)
  addCluster('remove <node>', 'take out a node that is down and will not come back', clusterRemoveCommand).option(
    '--force',
    'even where it may have had the only copy of some keys',
  )
  add('version', 'print versions', [], {}, orThrow(versionCommand))
  return program
}

/** Runs one command line (without the names of node and program) and gives its exit code; never rejects. */
export async function runCommandLine(
  commandLine: readonly string[],
  terminal: Terminal,
  machinery: Machinery,
): Promise<ExitCode> {
  let code: ExitCode = 0
  const program = buildProgram(terminal, machinery, (exitCode) => {
    code = exitCode
  })
  try {
    await program.parseAsync([...commandLine], { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) {
      // Commander has said what is wrong. Help that was asked for is no error; help for want of a command is.
      return error.exitCode === 0 ? 0 : 2
    }
    reportFailure(terminal, error, 'text')
    return exitCodeOf(error)
  }
}
