/** Where a sibling module is: `.ts` in the repository, `.js` in the built package. */
export function moduleUrl(name: string, importer: string): URL {
  return new URL(`./${name}${importer.endsWith('.ts') ? '.ts' : '.js'}`, importer)
}
