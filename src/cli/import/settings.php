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
    return is_scalar($value) || $value === null ? $value : ['@object' => get_class($value)];
}
$all = [];
foreach (array_slice($argv, 1) as $file) {
    ob_start();
    try {
        $returned = (static function () use ($file) {
            return require $file;
        })();
    } catch (Throwable $error) {
        ob_end_clean();
        fwrite(STDERR, $file . ':' . $error->getLine() . ': ' . $error->getMessage() . "\n");
        exit(2);
    }
    ob_end_clean();
    if (!is_array($returned)) {
        fwrite(STDERR, $file . ": it returns no array\n");
        exit(2);
    }
    $all[] = (object) array_map('plain', $returned);
}
$json = json_encode($all, JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_INVALID_UTF8_SUBSTITUTE);
if ($json === false) {
    fwrite(STDERR, json_last_error_msg() . "\n");
    exit(2);
}
echo $json;
