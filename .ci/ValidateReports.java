import com.pixelmed.validate.DicomSRValidator;

/**
 * PixelMed's template check of many structured reports in one process: its own program takes one, and is several seconds
 * in starting. All of its optional checks are on.
 */
public class ValidateReports {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        validator.setOptionMatchCaseOfCodeMeaning(true);
        validator.setOptionCheckTemplateID(true);
        validator.setOptionCheckAmbiguousTemplate(true);
        validator.setOptionCheckContentItemOrder(true);
        for (String file : files) {
            System.out.println("== " + file);
            System.out.println(validator.validate(file));
        }
    }
}
