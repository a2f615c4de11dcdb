// Reads the PHP files that are named after `--`, and prints what they return as one JSON document.
if (!function_exists('env')) {
    function env($key, $default = null)
    {
        $value = getenv($key);
        $words = ['true' => true, '(true)' => true, 'false' => false, '(false)' => false, 'null' => null,
            '(null)' => null, 'empty' => '', '(empty)' => ''];
        if ($value === false) {
            return $default instanceof Closure ? $default() : $default;
        }
        $word = strtolower($value);
        return array_key_exists($word, $words) ? $words[$word] : $value;
    }
}
function plain($value)
{
    if (is_array($value)) {
        return array_map('plain', $value);
    }
    if (is_float($value) && !is_finite($value)) {
        return (string) $value; // JSON has no such number.
    }
    return is_scalar($value) || $value === null ? $value : '@' . gettype($value);
}
function refuse($why)
{
    global $reading;
    $reading = null;
    while (ob_get_level() > 0) {
        ob_end_clean();
    }
    fwrite(STDERR, $why . "\n");
    exit(2);
}
$all = [];
$reading = null;
// A file that ends PHP takes this script along, and leaves it nothing but this.
register_shutdown_function(static function () {
    global $reading;
    $fatal = E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR;
    if ($reading !== null && ((error_get_last()['type'] ?? 0) & $fatal) === 0) {
        refuse($reading . ': it ends PHP (exit or die) before it returns its settings. If it is a guard against being'
            . ' run alone, import a copy without it');
    }
});
foreach (array_slice($argv, 1) as $file) {
    $reading = $file;
    ob_start();
    try {
        $returned = (static function () use ($file) {
            return require $file;
        })();
    } catch (Throwable $error) {
        refuse($error->getFile() . ':' . $error->getLine() . ': ' . $error->getMessage());
    }
    $reading = null;
    ob_end_clean();
    if (!is_array($returned)) {
        refuse($file . ': it returns no array');
    }
    $all[] = (object) array_map('plain', $returned);
}
$json = json_encode($all, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE);
if ($json === false) {
    refuse(json_last_error_msg());
}
echo $json;
